"""How the parts of an object merge: what the API's schema says by `x-kubernetes-list-type` and `-map-type`, as a table.

What isn't named here merges as the API server's default does: maps by their keys, lists as one value. The suite of
`tests/double` and the comparison of whole objects hold the table against the real API server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from slm_operator.crd import names
from tests.sim.schema import schema


@dataclass(frozen=True, eq=False)
class Part:
    """A part of an object: a map, a list or one value."""

    fields: Mapping[str, "Part"] = field(default_factory=dict)
    """Of a map: the parts that don't merge by default."""
    keys: tuple[str, ...] = ()
    """Of a list: the fields by which its elements are told apart."""
    element: "Part | None" = None
    """Of such a list: what its elements are."""
    is_set: bool = False
    atomic: bool = False
    """One value, whoever sets a piece of it sets it all."""
    present: bool = False
    """A struct of Go's by value: wherever what it is in is there, so is it, and nobody ever adds it."""

    def of(self, key: str) -> "Part":
        return self.fields.get(key, GRANULAR)


GRANULAR: Final = Part()
ATOMIC: Final = Part(atomic=True)
SET: Final = Part(is_set=True)
KEY_DEFAULTS: Final = {"protocol": "TCP"}


def struct(**fields: Part) -> Part:
    return Part(fields=fields, present=True)


def pointer(**fields: Part) -> Part:
    return Part(fields=fields)


def keyed(*keys: str, of: Part = GRANULAR, present: bool = False) -> Part:
    return Part(keys=keys, element=of, present=present)


METADATA: Final = struct(ownerReferences=keyed("uid", of=ATOMIC), finalizers=SET)
CONDITIONS: Final = keyed("type")
ENV: Final = pointer(
    valueFrom=pointer(fieldRef=ATOMIC, resourceFieldRef=ATOMIC, secretKeyRef=ATOMIC, configMapKeyRef=ATOMIC)
)
CONTAINER: Final = pointer(
    env=keyed("name", of=ENV),
    ports=keyed("containerPort", "protocol"),
    volumeMounts=keyed("mountPath"),
    volumeDevices=keyed("devicePath"),
    resources=struct(claims=keyed("name")),
)
POD_SPEC: Final = struct(
    containers=keyed("name", of=CONTAINER, present=True),
    initContainers=keyed("name", of=CONTAINER),
    volumes=keyed("name"),
    imagePullSecrets=keyed("name", of=ATOMIC),
    nodeSelector=ATOMIC,
    topologySpreadConstraints=keyed("topologyKey", "whenUnsatisfiable", of=pointer(labelSelector=ATOMIC)),
    hostAliases=keyed("ip"),
)
TEMPLATE: Final = struct(metadata=METADATA, spec=POD_SPEC)
KINDS: Final[Mapping[str, Part]] = {
    "Deployment": struct(
        metadata=METADATA,
        spec=struct(selector=ATOMIC, strategy=struct(), template=TEMPLATE),
        status=struct(conditions=CONDITIONS),
    ),
    "DaemonSet": struct(
        metadata=METADATA,
        spec=struct(selector=ATOMIC, updateStrategy=struct(), template=TEMPLATE),
        status=struct(conditions=CONDITIONS),
    ),
    "Job": struct(metadata=METADATA, spec=struct(selector=ATOMIC, template=TEMPLATE), status=struct()),
    "Pod": struct(metadata=METADATA, spec=POD_SPEC, status=struct(conditions=CONDITIONS, podIPs=keyed("ip"))),
    "Service": struct(
        metadata=METADATA,
        spec=struct(selector=ATOMIC, ports=keyed("port", "protocol")),
        status=struct(loadBalancer=struct(), conditions=CONDITIONS),
    ),
    "PersistentVolumeClaim": struct(
        metadata=METADATA,
        spec=struct(selector=ATOMIC, resources=struct(), dataSource=ATOMIC),
        status=struct(conditions=CONDITIONS),
    ),
    "PodDisruptionBudget": struct(
        metadata=METADATA, spec=struct(selector=ATOMIC), status=struct(conditions=CONDITIONS)
    ),
    "ControllerRevision": struct(metadata=METADATA, data=ATOMIC),
    "Node": struct(
        metadata=METADATA, spec=struct(), status=struct(conditions=CONDITIONS, addresses=keyed("type"))
    ),
    "Lease": struct(metadata=METADATA, spec=struct()),
    "ServiceMonitor": pointer(metadata=METADATA, spec=pointer(selector=ATOMIC)),
}
WITH_STATUS: Final = {kind for kind, part in KINDS.items() if "status" in part.fields} | {names.KIND}
"""Kinds whose status is a subresource, written apart from the rest."""
PLAIN: Final = struct(metadata=METADATA)


@cache
def structure(kind: str) -> Part:
    """The parts of a kind; our own kind's come from its CRD."""
    if kind != names.KIND:
        return KINDS.get(kind, PLAIN)
    properties = {**schema()["properties"]}
    del properties["metadata"]
    fields = {name: _from_schema(rules) for name, rules in properties.items()}
    return Part(fields={**fields, "metadata": METADATA}, present=True)


def _from_schema(rules: Mapping[str, Any]) -> Part:
    if rules.get("x-kubernetes-map-type") == "atomic":
        return ATOMIC
    match rules.get("x-kubernetes-list-type"):
        case "map":
            return keyed(*rules["x-kubernetes-list-map-keys"], of=_from_schema(rules["items"]))
        case "set":
            return SET
    return pointer(**{name: _from_schema(each) for name, each in rules.get("properties", {}).items()})
