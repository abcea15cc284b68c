"""Objects that aren't ours: whatever becomes of an SLMDeployment whose names they have, they stay as they are."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.api import Api, Document
from tests.apiserver.operator import Audit, Operator, slm, until
from tests.cluster import ControlPlane, service_monitor_crd

pytestmark = pytest.mark.apiserver

HEALS = 60
"""Seconds: the operator looks at a taken name by a timer of its own, since no watch tells of other people's objects."""
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
CACHE = {"mode": "PVC", "size": "5Gi"}
MONITORED = {"observability": {"serviceMonitor": {"enabled": True}}}


def stranger(api_version: str, kind: str, name: str, **content: Any) -> Document:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **content}


Case = tuple[Document, dict[str, Any], dict[str, Any]]
"""The stranger, the spec that asks for its name, and the operator's settings with which it does."""

CASES: dict[str, Case] = {
    "claim": (
        stranger("v1", "PersistentVolumeClaim", "a-models", spec={**CLAIM, "storageClassName": ""}),
        {"cache": CACHE},
        {},
    ),
    "ca": (
        stranger("v1", "ConfigMap", "a-ca", data={"mine": "theirs"}),
        {},
        {"fetch": {"caBundle": "-----BEGIN CERTIFICATE-----\n"}},
    ),
    "service": (
        stranger("v1", "Service", "a", spec={"selector": {"app": "theirs"}, "ports": [{"port": 9}]}),
        {},
        {},
    ),
    "service-of-the-same-port": (
        stranger("v1", "Service", "a", spec={"ports": [{"name": "http", "port": 8080, "targetPort": "api"}]}),
        {},
        {},
    ),
    "monitor": (
        stranger(
            "monitoring.coreos.com/v1",
            "ServiceMonitor",
            "a",
            spec={"selector": {"matchLabels": {"app": "theirs"}}, "endpoints": [{"port": "web"}]},
        ),
        MONITORED,
        {},
    ),
    "budget": (
        stranger(
            "policy/v1",
            "PodDisruptionBudget",
            "a",
            spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "theirs"}}},
        ),
        {"replicas": 2},
        {},
    ),
    "key": (stranger("v1", "Secret", "a-api-key", stringData={"password": "theirs"}), {}, {}),
    "deployment": (
        stranger(
            "apps/v1",
            "Deployment",
            "a",
            spec={
                "replicas": 0,
                "selector": {"matchLabels": {"app": "theirs"}},
                "template": {
                    "metadata": {"labels": {"app": "theirs"}},
                    "spec": {"containers": [{"name": "main", "image": "theirs:1"}]},
                },
            },
        ),
        {},
        {},
    ),
}


SAYS = {"monitor": "MonitoringReady", "budget": "Refused", "key": None}
"""The condition that names the stranger, where it isn't Ready: without these the model is served all the same.

Of the key kubelet tells: it mounts no Secret that lacks the owner's entry, and there is none here.
"""


@pytest.fixture
def monitors(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    plane.established("servicemonitors.monitoring.coreos.com")


def settled(api: Api, kind: str, name: str) -> Document:
    """The object, once the cluster's own controllers have had their turn with it."""
    seen: list[Document | None] = []

    def still() -> bool:
        seen.append(api.get(kind, name))
        return len(seen) > 10 and seen[-1] is not None and seen[-1] == seen[-10]

    until(f"{kind} {name} is settled", still)
    assert seen[-1] is not None
    return seen[-1]


def collected(api: Api, owner: Document) -> Callable[[], bool]:
    """Whether the garbage collector is through with what an object owned."""
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference |= {key: owner["metadata"][key] for key in ("name", "uid")}
    canary = {"name": "canary", "ownerReferences": [reference]}
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": canary})
    return lambda: api.get("ConfigMap", "canary") is None


@pytest.mark.parametrize("case", CASES)
def test_a_strangers_object_is_never_touched_and_the_name_heals(
    plane: ControlPlane, monitors: None, start: Callable[..., Operator], api: Api, case: str
) -> None:
    document, spec, settings = CASES[case]
    kind, name = document["kind"], document["metadata"]["name"]
    api.apply(document)
    before = settled(api, kind, name)
    start(**settings)

    api.apply(slm("a", api.namespace, **spec))
    says = SAYS.get(case, "Ready")
    until("it says so", lambda: told(api, says) == "NameTaken", 20)
    if says is not None:
        assert f"{kind} {name}" in api.condition("a", says)["message"]
    assert api.get(kind, name) == before

    edited = spec | {"runtime": {"contextLength": 1024}}
    resource = api.apply(slm("a", api.namespace, **edited))
    generation = resource["metadata"]["generation"]
    until("it says so again", lambda: api.condition("a").get("observedGeneration") == generation, 20)
    assert told(api, says) == "NameTaken"
    assert api.get(kind, name) == before

    through = collected(api, resource)
    api.delete("SLMDeployment", "a")
    until("all that it had is collected", through)
    assert api.get(kind, name) == before

    api.apply(slm("a", api.namespace, **spec))
    until("it says so", lambda: told(api, says) == "NameTaken", 20)
    api.delete(kind, name)
    if says is not None:
        until("ours takes its place", lambda: owned(api, kind, name), HEALS)
    until("the name is no fault any more", lambda: api.reason("a") not in {"", "NameTaken"}, HEALS)
    Audit(plane).settled(api.namespace)


def told(api: Api, condition: str | None) -> str:
    """The reason of the condition that tells of a taken name; as if it did where none does."""
    return "NameTaken" if condition is None and api.condition("a") else api.reason("a", condition or "Ready")


def owned(api: Api, kind: str, name: str) -> bool:
    """By the SLMDeployment that is there now."""
    resource, found = api.get("SLMDeployment", "a"), api.get(kind, name)
    if resource is None or found is None:
        return False
    owners = found["metadata"].get("ownerReferences") or ()
    return [each["uid"] for each in owners] == [resource["metadata"]["uid"]]


def test_deleted_and_made_again_at_once_waits_for_the_garbage_collector(
    plane: ControlPlane, operator: Operator, api: Api
) -> None:
    """The one before of that name still has its children: a finalizer of ours makes the garbage collector slow."""
    api.apply(slm("a", api.namespace))
    until("it serves", lambda: api.condition("a").get("status") == "True")
    # In the order of their release. The key is asked for again while there is no Deployment, or while its pods are
    # stuck, as those of a real kubelet would be.
    held = [("Secret", "a-api-key"), ("Service", "a"), ("Deployment", "a")]
    for kind, name in held:
        hold(api, kind, name, ["tests.example.com/held"])
    api.delete("SLMDeployment", "a")
    api.apply(slm("a", api.namespace))
    until("it is looked at", lambda: api.condition("a"))
    until("the collector has begun", lambda: all(going(api, kind, name) for kind, name in held))
    Audit(plane).settled(api.namespace)
    assert api.reason("a") != "NameTaken"
    assert api.condition("a", "Stalled").get("status") != "True"
    status = (api.get("SLMDeployment", "a") or {})["status"]
    assert not status.get("endpoint"), "a Service that is going is no endpoint"
    for kind, name in held:
        hold(api, kind, name, [])
    until("it serves", lambda: api.condition("a").get("status") == "True", HEALS)
    until("all of it is its own", lambda: not [each for each in held if not owned(api, *each)], HEALS)


def test_deleted_and_made_again_in_one_breath_never_stalls(
    plane: ControlPlane, operator: Operator, api: Api
) -> None:
    for _ in range(5):
        api.apply(slm("a", api.namespace))
        until("it serves", lambda: api.condition("a").get("status") == "True")
        api.delete("SLMDeployment", "a")
        uid = api.apply(slm("a", api.namespace))["metadata"]["uid"]
        seen: set[str] = set()

        def served(uid: str = uid, seen: set[str] = seen) -> bool:
            seen.add(api.reason("a"))
            seen.add(api.reason("a", "Stalled"))
            ready = api.condition("a").get("status") == "True"
            return ready and (api.get("SLMDeployment", "a") or {})["metadata"]["uid"] == uid

        until("it serves again", served)
        assert "NameTaken" not in seen


def hold(api: Api, kind: str, name: str, finalizers: list[str]) -> None:
    patch = {"metadata": {"finalizers": finalizers}}
    answer = api.send("PATCH", api.path(kind, name), patch, "application/merge-patch+json")
    assert answer.get("kind") == kind, answer


def going(api: Api, kind: str, name: str) -> bool:
    found = api.get(kind, name)
    return found is not None and "deletionTimestamp" in found["metadata"]
