"""An API server in memory: revisions, generations, server-side apply, preconditions, history.

It does what our objects need and refuses what it doesn't know. Lists are atomic under apply.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import (
    DEPLOYMENT,
    JOB,
    OURS,
    SERVICE_MONITOR,
    SLM_DEPLOYMENT,
    Resource,
)
from tests.sim.loop import wall_clock
from tests.sim.schema import admitted

Doc = dict[str, Any]
MANAGER = "slm-operator"


class Ref(NamedTuple):
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Event:
    type: str
    ref: Ref
    document: Doc


@dataclass(frozen=True)
class Write:
    """A write that changed something."""

    verb: str
    ref: Ref
    by: str


@dataclass
class MemoryCluster:
    """Implements :class:`slm_operator.cluster.protocol.Cluster`; people and controllers use the same objects."""

    monitoring: bool = False
    revision: int = 0
    objects: dict[Ref, Doc] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    requests: list[Write] = field(default_factory=list)
    """Every write that the operator asked for, also those that changed nothing or were refused."""
    admit: Callable[[Doc], Doc] = admitted
    """What the schema makes of the custom resource."""
    watchers: list[Callable[[], None]] = field(default_factory=list)
    """Called after each change."""
    _applied: dict[tuple[Ref, str, str], Doc] = field(default_factory=dict)
    _uids: int = 0

    # What the operator uses.

    async def list(
        self, resource: Resource, namespace: str | None, keep: Callable[[Doc], Any]
    ) -> Listing[Any]:
        items = [
            keep(clone(document))
            for ref, document in self.objects.items()
            if ref.kind == resource.kind
            and namespace in {None, ref.namespace}
            and (not resource.selector or _selected(document))
        ]
        return Listing(items, str(self.revision))

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Doc:
        return clone(self._live(Ref(resource.kind, namespace or "", name)))

    async def create(self, document: Doc) -> Doc:
        ref = ref_of(document)
        self.requests.append(Write("create", ref, MANAGER))
        if ref in self.objects:
            raise errors.ExistsError(f"{ref.kind} {ref.name!r} already exists")
        return self.put(document, by=MANAGER)

    async def replace(self, document: Doc) -> Doc:
        ref = ref_of(document)
        self.requests.append(Write("replace", ref, MANAGER))
        self._precondition(ref, document["metadata"].get("resourceVersion"))
        return self.put(document, by=MANAGER)

    async def apply(self, document: Doc, *, force: bool) -> Doc:
        ref = ref_of(document)
        self.requests.append(Write("apply", ref, MANAGER))
        if not force and ref in self.objects and (ref, MANAGER, "") not in self._applied:
            raise errors.TakenError(f"Apply failed with 1 conflict: {ref.kind} {ref.name!r}")
        return self._apply(ref, document, "")

    async def overwrite(self, document: Doc) -> Doc:
        ref = ref_of(document)
        self.requests.append(Write("overwrite", ref, MANAGER))
        self._precondition(ref, document["metadata"]["resourceVersion"])
        return self.put(_merge(self.objects[ref], document), by=MANAGER)

    async def apply_status(self, document: Doc) -> Doc:
        ref = ref_of(document)
        self.requests.append(Write("status", ref, MANAGER))
        self._precondition(ref, document["metadata"]["resourceVersion"])
        return self._apply(ref, {"status": document["status"]}, "status")

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> None:
        ref = Ref(resource.kind, namespace, name)
        self.requests.append(Write("delete", ref, MANAGER))
        if self._live(ref)["metadata"]["uid"] != uid:
            raise errors.ConflictError("the UID in the precondition doesn't match")
        self._precondition(ref, resource_version)
        self.remove(ref, by=MANAGER)

    async def serves(self, resource: Resource) -> bool:
        return resource is not SERVICE_MONITOR or self.monitoring

    # What people and controllers use.

    def put(self, document: Doc, *, by: str = "people") -> Doc:
        """Create an object or replace all of it; metadata that the server keeps is kept."""
        ref = ref_of(document)
        before = self.objects.get(ref)
        after = clone(document)
        metadata = after["metadata"]
        if before is None:
            self._uids += 1
            metadata |= {"uid": f"uid-{self._uids}", "creationTimestamp": _stamp()}
            after = self._admit(after)
            if _has_generation(after):
                metadata["generation"] = 1
        else:
            for kept in ("uid", "creationTimestamp", "generation"):
                if kept in before["metadata"]:
                    metadata[kept] = before["metadata"][kept]
            after = self._admit(after)
            if _has_generation(after) and after.get("spec") != before.get("spec"):
                metadata["generation"] = before["metadata"]["generation"] + 1
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
            if after == before:
                return clone(before)
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        self.objects[ref] = after
        self._record("ADDED" if before is None else "MODIFIED", ref, after)
        self.writes.append(Write("create" if before is None else "update", ref, by))
        return clone(after)

    def change(self, ref: Ref, change: Callable[[Doc], None], *, by: str = "people") -> Doc:
        """Edit a copy in place and put it."""
        document = clone(self._live(ref))
        change(document)
        return self.put(document, by=by)

    def remove(self, ref: Ref, *, by: str = "people") -> None:
        """Delete; the garbage collector takes what it owned when it next looks."""
        document = self.objects.pop(ref)
        self.revision += 1
        document["metadata"]["resourceVersion"] = str(self.revision)
        self._applied = {key: intent for key, intent in self._applied.items() if key[0] != ref}
        self._record("DELETED", ref, document)
        self.writes.append(Write("delete", ref, by))

    def of(self, kind: str) -> Iterator[tuple[Ref, Doc]]:
        """All objects of a kind, oldest name first."""
        return iter([(ref, doc) for ref, doc in sorted(self.objects.items()) if ref.kind == kind])

    def changed_by(self, who: str, *, since: int = 0) -> "list[Write]":
        return [write for write in self.writes[since:] if write.by == who]

    def _admit(self, document: Doc) -> Doc:
        return self.admit(document) if document["kind"] == SLM_DEPLOYMENT.kind else default(document)

    def _live(self, ref: Ref) -> Doc:
        try:
            return self.objects[ref]
        except KeyError:
            raise errors.MissingError(f"{ref.kind} {ref.name!r} not found") from None

    def _precondition(self, ref: Ref, resource_version: str | None) -> None:
        if self._live(ref)["metadata"]["resourceVersion"] != resource_version:
            raise errors.ConflictError(f"{ref.kind} {ref.name!r}: the object has been modified")

    def _apply(self, ref: Ref, intent: Doc, subresource: str) -> Doc:
        before = self.objects.get(ref)
        earlier = self._applied.get((ref, MANAGER, subresource), {})
        merged = _merge(_without(clone(before or {}), earlier, intent), intent)
        self._applied[ref, MANAGER, subresource] = clone(intent)
        return self.put(merged, by=MANAGER)

    def _record(self, kind: str, ref: Ref, document: Doc) -> None:
        self.history.append(Event(kind, ref, clone(document)))
        for watcher in self.watchers:
            watcher()


def clone(document: Any) -> Any:
    """A deep copy of what is JSON; much faster than `deepcopy`."""
    return orjson.loads(orjson.dumps(document))


def ref_of(document: Doc) -> Ref:
    return Ref(document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"])


def default(document: Doc) -> Doc:
    """Some of what the API server fills in, so that defaulting can't be mistaken for drift."""
    spec = document.get("spec")
    if document["kind"] == DEPLOYMENT.kind and spec:
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("replicas", 1)
        pod = spec["template"]["spec"]
        pod.setdefault("dnsPolicy", "ClusterFirst")
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("imagePullPolicy", "IfNotPresent")
    if document["kind"] == "Service" and spec:
        spec.setdefault("clusterIP", "10.0.0.1")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", ()):
            port.setdefault("protocol", "TCP")
    return document


def _has_generation(document: Doc) -> bool:
    return document["kind"] in {SLM_DEPLOYMENT.kind, DEPLOYMENT.kind, JOB.kind, SERVICE_MONITOR.kind}


def _selected(document: Doc) -> bool:
    key, _, value = OURS.partition("=")
    return (document["metadata"].get("labels") or {}).get(key) == value


def _merge(live: Any, intent: Any) -> Any:
    if isinstance(live, dict) and isinstance(intent, dict):
        return live | {key: _merge(live.get(key), value) for key, value in intent.items()}
    return clone(intent)


def _without(live: Doc, earlier: Doc, intent: Doc) -> Doc:
    """Without the fields that the manager had set and no longer sets."""
    for key, value in earlier.items():
        if key not in intent:
            if isinstance(value, dict) and isinstance(live.get(key), dict):
                _without(live[key], value, {})
                if not live[key]:
                    del live[key]
            else:
                live.pop(key, None)
        elif isinstance(value, dict) and isinstance(live.get(key), dict) and isinstance(intent[key], dict):
            _without(live[key], value, intent[key])
    return live


def _stamp() -> str:
    return wall_clock().isoformat().replace("+00:00", "Z")
