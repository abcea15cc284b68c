"""How often the operator writes, counted from the API server's own log; the figures are printed."""

import json
from collections import Counter
from collections.abc import Callable

import pytest

from tests.apiserver.operator import Audit, Operator, slm
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver


def wait_ready(plane: ControlPlane, namespace: str, *names: str) -> None:
    targets = [f"slm/{name}" for name in names] or ["slm", "--all"]
    plane.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=90s", *targets)


def show(what: str, counted: Counter[str]) -> None:
    print(f"{what}: {sum(counted.values())} writes {dict(counted)}")


def test_create_edit_and_rest(
    plane: ControlPlane, operator: Operator, namespace: str, apply: Callable
) -> None:
    audit = Audit(plane)
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    created = audit.settled(namespace)
    show("create", created)
    # A pod that is ready at once is in the first status.
    assert created.pop("slmdeployments/status") <= 2
    assert created == {"controllerrevisions": 1, "deployments": 1, "services": 1, "secrets": 1}

    audit = Audit(plane)
    apply(slm("a", namespace, runtime={"contextLength": 1024}))
    generation = plane.kubectl("-n", namespace, "get", "slm", "a", "-o", "jsonpath={.metadata.generation}")
    plane.kubectl(
        "-n", namespace, "wait", f"--for=jsonpath={{.status.observedGeneration}}={generation}", "slm/a"
    )
    wait_ready(plane, namespace, "a")
    edited = audit.settled(namespace)
    show("edit of the context length", edited)
    assert edited["deployments"] == 1
    assert edited["slmdeployments/status"] <= 2
    assert edited["controllerrevisions"] == 1
    assert edited.keys() == {"controllerrevisions", "deployments", "slmdeployments/status"}

    audit = Audit(plane)
    plane.kubectl("-n", namespace, "label", "slm", "a", "team=a")
    labelled = audit.settled(namespace)
    show("edit without a new generation", labelled)
    assert not labelled

    audit = Audit(plane)
    apply(
        slm(
            "a",
            namespace,
            runtime={"contextLength": 1024},
            hardware={"preference": ["cpu"], "fallback": {"after": "7m"}},
        )
    )
    ineffective = audit.settled(namespace)
    show("edit without effect", ineffective)
    assert ineffective == {"slmdeployments/status": 1}


def test_events_are_few(plane: ControlPlane, operator: Operator, namespace: str, apply: Callable) -> None:
    """One for each decision and outcome, none at rest and none for what an earlier process has told."""

    def told(what: str, audit: Audit, *, seconds: float = 3) -> int:
        audit.settled(namespace, seconds=seconds)
        print(f"{what}: {audit.told(namespace)} events")
        return audit.told(namespace)

    enough = {"requests": {"cpu": "10m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    audit = Audit(plane)
    apply(slm("a", namespace, resources=enough))
    wait_ready(plane, namespace, "a")
    assert told("create", audit) == 2
    described = plane.kubectl("-n", namespace, "describe", "slm", "a").partition("\nEvents:")[2]
    assert sorted(line.split()[:2] for line in described.splitlines()[3:]) == [
        ["Normal", "Placed"],
        ["Normal", "RevisionReady"],
    ]

    audit = Audit(plane)
    assert told("rest", audit, seconds=5) == 0
    assert operator.stop() == 0
    operator.start()
    assert told("restart", audit, seconds=5) == 0

    audit = Audit(plane)
    apply(slm("a", namespace, resources=enough, runtime={"contextLength": 1024}))
    generation = plane.kubectl("-n", namespace, "get", "slm", "a", "-o", "jsonpath={.metadata.generation}")
    plane.kubectl(
        "-n", namespace, "wait", f"--for=jsonpath={{.status.observedGeneration}}={generation}", "slm/a"
    )
    wait_ready(plane, namespace, "a")
    assert told("edit of the context length", audit) == 1


def test_restart(plane: ControlPlane, operator: Operator, namespace: str, apply: Callable) -> None:
    apply(*(slm(f"a{number}", namespace) for number in range(20)))
    wait_ready(plane, namespace)
    Audit(plane).settled(namespace)
    audit = Audit(plane)
    assert operator.stop() == 0
    operator.start()
    restarted = audit.settled(namespace, seconds=8)
    show("restart over 20", restarted)
    assert not restarted


def test_resync(plane: ControlPlane, start: Callable, namespace: str, apply: Callable) -> None:
    start(resyncSeconds=4)
    apply(*(slm(f"a{number}", namespace) for number in range(5)))
    wait_ready(plane, namespace)
    Audit(plane).settled(namespace)
    audit = Audit(plane)
    resynced = audit.settled(namespace, seconds=15)
    lists = [
        event
        for event in audit.requests()
        if event["verb"] == "list" and event["objectRef"]["resource"] == "slmdeployments"
    ]
    show(f"{len(lists)} resyncs", resynced)
    assert len(lists) >= 2
    assert not resynced


def test_what_is_meddled_with_is_put_back(
    plane: ControlPlane, operator: Operator, namespace: str, apply: Callable
) -> None:
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    Audit(plane).settled(namespace)
    audit = Audit(plane)
    plane.kubectl(
        "-n",
        namespace,
        "patch",
        "service",
        "a",
        "--type=json",
        "-p",
        json.dumps([{"op": "replace", "path": "/spec/ports/0/port", "value": 9}]),
    )
    put_back = audit.settled(namespace)
    show("a child changed by hand", put_back)
    # Apply would leave the other port beside ours, and is refused: the second write replaces the list.
    assert put_back == {"services": 2}
    port = plane.kubectl("-n", namespace, "get", "service", "a", "-o", "jsonpath={.spec.ports[0].port}")
    assert port == "8080"


def test_what_others_add_is_left_alone(
    plane: ControlPlane, operator: Operator, namespace: str, apply: Callable
) -> None:
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    Audit(plane).settled(namespace)
    audit = Audit(plane)
    plane.kubectl("-n", namespace, "label", "deployment", "a", "team=a")
    plane.kubectl("-n", namespace, "annotate", "service", "a", "note=b")
    added = audit.settled(namespace)
    show("labels and annotations of others", added)
    assert not added
