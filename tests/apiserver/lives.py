"""Scenarios of an SLMDeployment's life, lived by a real operator behind a proxy that breaks things on the way.

A scenario is data: what somebody asks for, step by step, and what has to be so before the next step. What is compared
is the end (every object of the operator, identities aside), how often each object was made and deleted on the way, and
that there is rest afterwards: nothing is written by the running operator nor by one that is started anew.
"""

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.apiserver.api import PATHS, Api, Document
from tests.apiserver.operator import PATIENCE, SETTINGS, Audit, Operator, slm, until
from tests.apiserver.proxy import Fault, Proxy
from tests.cluster import ControlPlane
from tests.sim.ends import normal

NAME = "a"
QUIET = 2.5
"""Seconds without a write that are rest: more than the operator waits for a pod's changes to come together."""
OURS = "app.kubernetes.io/managed-by=slm-operator"
CLASSES = [*SETTINGS["classes"], SETTINGS["classes"][0] | {"name": "other"}]
_CHANGING = frozenset({"managedFields", "clusterIP", "clusterIPs", "lastUpdateTime", "lastProbeTime"})

Condition = Callable[["Life"], bool]


@dataclass
class Life:
    """What the conditions of a scenario look at."""

    api: Api

    def status(self) -> Document:
        """What was said of the present spec; empty where nothing was."""
        found = self.api.get("SLMDeployment", NAME) or {}
        status: Document = found.get("status") or {}
        current = found and status.get("observedGeneration") == found["metadata"]["generation"]
        return status if current else {}

    def reason(self) -> str:
        return next(
            (each["reason"] for each in self.status().get("conditions") or () if each["type"] == "Ready"), ""
        )


def serving(life: Life) -> bool:
    """All replicas of the present template, and none of an earlier one."""
    deployment = life.api.get("Deployment", NAME)
    if deployment is None or life.reason() != "Serving":
        return False
    status, wanted = deployment.get("status") or {}, deployment["spec"]["replicas"]
    settled = status.get("observedGeneration") == deployment["metadata"]["generation"]
    counted = [status.get(each, 0) for each in ("replicas", "updatedReplicas", "readyReplicas")]
    return settled and counted == [wanted] * 3


def suspended(life: Life) -> bool:
    return life.reason() == "Suspended"


def gone(life: Life) -> bool:
    """With all its children."""
    return not children(life.api) and life.api.get("SLMDeployment", NAME) is None


@dataclass(frozen=True)
class Step:
    spec: dict[str, Any] | None = field(default_factory=dict)
    """What differs from the plainest SLMDeployment; None deletes it."""
    holds: Condition = serving


@dataclass(frozen=True)
class Scenario:
    name: str
    steps: tuple[Step, ...]


ROOT_CA_PUBLISHER = "system:serviceaccount:kube-system:root-ca-cert-publisher"
"""Makes a ConfigMap in each namespace, sooner or later."""
CONTEXT = {"runtime": {"contextLength": 1024}}
SCENARIOS = (
    Scenario("create", (Step(),)),
    Scenario("fitted", (Step({"resources": None}),)),
    Scenario("update", (Step(), Step(CONTEXT))),
    Scenario("suspend", (Step(), Step({"suspend": True}, suspended), Step())),
    Scenario("class-change", (Step(), Step({"hardware": {"preference": ["other"]}}))),
    Scenario("recreate", (Step(), Step(None, gone), Step())),
)


@dataclass(frozen=True)
class End:
    """Of a life; two of one scenario are equal whatever happened on the way."""

    state: dict[str, Any]
    made: Counter[str]
    """How often objects were made or deleted, by whomever, since the scenario itself deleted them."""
    writes: int = field(compare=False)
    met: tuple[str, ...] = field(compare=False, default=())
    """The writes that met the fault."""


def live(
    plane: ControlPlane,
    scenario: Scenario,
    namespace: str,
    folder: Path,
    *,
    fault: Fault | None = None,
    at: int = 0,
) -> End:
    """Live a scenario in a new namespace, with an operator of its own, to its end.

    Parameters
    ----------
    at
        The number of the write that meets the fault.
    """
    folder.mkdir()
    plane.kubectl("create", "namespace", namespace)
    life, audit = Life(Api(plane, namespace)), Audit(plane)
    # Only watches that lose events need the resync: what a refusal stops has to go on by itself.
    resync = 4 if fault is not None and fault.loses else 600
    with Proxy(plane.kubeconfig, folder) as proxy:
        operator = Operator(
            plane,
            folder,
            lease=namespace,
            kubeconfig=proxy.kubeconfig,
            namespaces=[namespace],
            classes=CLASSES,
            resyncSeconds=resync,
        )
        proxy.kill = lambda: os.kill(operator.pid, signal.SIGKILL)
        if fault is not None:
            proxy.at(at, fault)
        with operator:
            for step in scenario.steps:
                _take(life, step)
                until(f"{step} holds", lambda step=step: _revived(operator) and step.holds(life))
                if step.spec is None:
                    # Between two watches a child's end may be known before its owner's: it is made once more for
                    # an owner that is gone, and collected. From here on another life is counted.
                    audit = Audit(plane)
            rest(proxy, operator)
            proxy.clear()
            state, asked = end_state(life.api), len(proxy.writes)
            operator.stop()
            operator.start()
            rest(proxy, operator)
            assert [write.what for write in proxy.writes[asked:]] == [], "a restart at rest writes"
    met = tuple(f"{write.number}: {write.what}" for write in proxy.met)
    end = End(state, made(audit, namespace), asked, met)
    plane.kubectl("delete", "namespace", namespace, "--wait=false")
    return end


def _take(life: Life, step: Step) -> None:
    if step.spec is None:
        life.api.delete("SLMDeployment", NAME)
    else:
        life.api.apply(slm(NAME, life.api.namespace, **step.spec))


def _revived(operator: Operator) -> bool:
    operator.revive()
    return True


def rest(proxy: Proxy, operator: Operator) -> None:
    """Return when a running operator has written nothing for a while."""
    deadline = time.monotonic() + PATIENCE
    asked, since = len(proxy.writes), time.monotonic()
    while time.monotonic() - since < QUIET:
        time.sleep(0.1)
        operator.revive()
        if len(proxy.writes) != asked or operator.readiness() != "acting":
            asked, since = len(proxy.writes), time.monotonic()
        assert time.monotonic() < deadline, f"no rest: {[write.what for write in proxy.writes]}"


def children(api: Api) -> list[Document]:
    """All objects of the operator, pods and those of other controllers apart."""
    kinds = [kind for kind in PATHS if kind not in {"Pod", "SLMDeployment"}]
    return [{"kind": kind, **each} for kind in kinds for each in api.list(kind, OURS)]


def end_state(api: Api) -> dict[str, Any]:
    """By kind and name, without what differs between two runs to the same end; a Secret's content is random."""
    resource = api.get("SLMDeployment", NAME)
    listed = children(api) + ([resource] if resource else [])
    uid = resource["metadata"]["uid"] if resource else ""
    state = {
        f"{document['kind']}/{document['metadata']['name']}": _plain(document, api.namespace, uid)
        for document in listed
    }
    text = json.dumps(state)
    for document in listed:
        if document["kind"] == "ControllerRevision":
            # Named by content that knows the uid.
            text = text.replace(document["metadata"]["name"], f"revision-{document['revision']}")
    return dict(json.loads(re.sub(r'("slm-operator.io/revision": )"[0-9a-f]{10}"', r'\1"DIGEST"', text)))


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Of sets of fields; that a map itself is somebody's (`.`) goes with its entries."""
    fields = (one.keys() | other.keys()) - {"."}
    return {field: _union(one.get(field, {}), other.get(field, {})) for field in fields}


def _plain(document: Document, namespace: str, uid: str) -> Any:
    owned: dict[str, Any] = {}
    for entry in document["metadata"].get("managedFields") or ():
        if entry["manager"] == "slm-operator":
            # What a POST made and an apply took over are two owners to the API server, and both are the operator's: which of
            # them has lost a field depends on whether its value changed meanwhile, as a time in seconds may.
            of = entry.get("subresource") or ""
            owned[of] = _union(owned.get(of, {}), entry.get("fieldsV1") or {})
    kept = {"owned": owned, **_without(normal(document), _CHANGING)}
    if document["kind"] == "Secret":
        kept["data"] = sorted(document.get("data") or ())
    if document["kind"] != "SLMDeployment":
        kept.pop("status", None)
    text = json.dumps(kept, sort_keys=True).replace(namespace, "NAMESPACE")
    return json.loads(text.replace(uid, "UID") if uid else text)


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [_without(each, names) for each in value]
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items() if key not in names}
    return value


def made(audit: Audit, namespace: str) -> Counter[str]:
    """From the API server's own log: made anew is made twice."""
    plurals = {path.rpartition("/")[2] for kind, path in PATHS.items() if kind != "Pod"}
    counted: Counter[str] = Counter()
    for event in audit.events():
        ref, code = event.get("objectRef") or {}, event["responseStatus"].get("code")
        if ref.get("namespace") != namespace or ref.get("resource") not in plurals or ref.get("subresource"):
            continue
        if event["user"]["username"] == ROOT_CA_PUBLISHER:
            continue
        if code == 201:
            counted[f"made {ref['resource']}"] += 1
        elif event["verb"] == "delete" and code == 200:
            counted[f"deleted {ref['resource']}"] += 1
    return counted
