"""The operator process against a real API server: refusals, strangers, leases, crashes, subresources."""

import json
from collections import Counter
from collections.abc import Callable

import pytest

from tests.apiserver.operator import Audit, Operator, slm, until
from tests.apiserver.test_writes import wait_ready
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver


def get(plane: ControlPlane, namespace: str, what: str, path: str = "") -> str:
    output = f"jsonpath={path}" if path else "name"
    return plane.kubectl("-n", namespace, "get", what, "-o", output, "--ignore-not-found")


def reason(plane: ControlPlane, namespace: str, name: str) -> str:
    return get(plane, namespace, f"slm/{name}", '{.status.conditions[?(@.type=="Ready")].reason}')


def children(plane: ControlPlane, namespace: str) -> list[str]:
    kinds = "deployment,service,secret,job,persistentvolumeclaim,replicaset,pod"
    return get(plane, namespace, kinds).split()


def test_scale_and_status_are_subresources(plane, operator, namespace, apply) -> None:
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    plane.kubectl("-n", namespace, "scale", "slm/a", "--replicas=3")
    until("three replicas", lambda: get(plane, namespace, "slm/a", "{.status.readyReplicas}") == "3")
    scale = plane.kubectl(
        "get", "--raw", f"/apis/slm-operator.io/v1alpha1/namespaces/{namespace}/slmdeployments/a/scale"
    )
    selector = json.loads(scale)["status"]["selector"]
    selected = plane.kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "name").split()
    assert len(selected) == 3
    patch = json.dumps({"status": {"readyReplicas": 7}})
    plane.kubectl("-n", namespace, "patch", "slm/a", "--type=merge", "-p", patch)
    assert get(plane, namespace, "slm/a", "{.status.readyReplicas}") == "3"
    table = plane.kubectl("-n", namespace, "get", "slm", "-o", "wide").splitlines()
    assert table[0].split() == [
        "NAME",
        "MODEL",
        "READY",
        "HARDWARE",
        "STATUS",
        "DOWNLOAD",
        "DEVICE",
        "TOK/S",
        "CONTEXT",
        "ENDPOINT",
        "ADDRESS",
        "AGE",
    ]
    assert "3/3" in table[1]
    assert "Serving" in table[1]


def test_a_strangers_deployment_of_the_name_is_left_alone(plane, operator, namespace, apply) -> None:
    plane.kubectl("-n", namespace, "create", "deployment", "a", "--image=theirs:1")
    before = get(plane, namespace, "deployment/a", "{.spec}")
    apply(slm("a", namespace))
    until("it says so", lambda: reason(plane, namespace, "a") == "NameTaken")
    assert get(plane, namespace, "deployment/a", "{.spec}") == before
    plane.kubectl("-n", namespace, "wait", "--for=condition=Stalled", "--timeout=10s", "slm/a")
    plane.kubectl("-n", namespace, "delete", "deployment", "a")
    apply(slm("a", namespace, replicas=1, runtime={"parallel": 2}))
    wait_ready(plane, namespace, "a")


def test_a_quota_is_reported_in_its_own_words_and_heals(plane, operator, namespace, apply) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"count/services": "0"}},
    }
    apply(quota)
    until("the quota counts", lambda: get(plane, namespace, "quota/none", "{.status.hard}"))
    apply(slm("a", namespace))
    until("it says so", lambda: reason(plane, namespace, "a") == "WriteForbidden")
    message = get(plane, namespace, "slm/a", '{.status.conditions[?(@.type=="Ready")].message}')
    assert "exceeded quota" in message
    plane.kubectl("-n", namespace, "delete", "quota", "none")
    wait_ready(plane, namespace, "a")


def test_fitted_memory_is_computed_from_a_look_at_the_model(plane, operator, namespace, apply) -> None:
    apply(slm("a", namespace, resources=None))
    wait_ready(plane, namespace, "a")
    request = "{.spec.template.spec.containers[0].resources.requests.memory}"
    assert get(plane, namespace, "deployment/a", request)
    assert "weights" in get(plane, namespace, "slm/a", "{.status.memory.explanation}")
    until("the Job is gone", lambda: not get(plane, namespace, "job"))


def test_everything_goes_while_the_operator_is_away(plane, operator, namespace, apply) -> None:
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    Audit(plane).settled(namespace)
    operator.stop()
    plane.kubectl("-n", namespace, "delete", "slm", "a")
    until("every child is gone", lambda: not children(plane, namespace))
    audit = Audit(plane)
    operator.start()
    assert not audit.settled(namespace, seconds=8)


def made(plane: ControlPlane, audit: Audit, namespace: str) -> Counter[str]:
    """How often each object was made by the operator."""
    return Counter(
        f"{event['objectRef']['resource']}/{event['objectRef']['name']}"
        for event in audit.requests(namespace)
        if event["responseStatus"].get("code") == 201 and "name" in event["objectRef"]
    )


def assert_complete(plane: ControlPlane, audit: Audit, namespace: str, names: list[str]) -> None:
    """Everything is there, was made once, and nothing was deleted on the way."""
    wait_ready(plane, namespace)
    audit.settled(namespace)
    present = children(plane, namespace)
    for name in names:
        for child in (f"deployment.apps/{name}", f"service/{name}", f"secret/{name}-api-key"):
            assert child in present
    counted = made(plane, audit, namespace)
    assert {thing: times for thing, times in counted.items() if times > 1} == {}
    assert not [event for event in audit.requests(namespace) if event["verb"] == "delete"]


def test_kills_in_a_burst(plane, operator, namespace, apply) -> None:
    names = [f"a{number}" for number in range(40)]
    audit = Audit(plane)
    apply(*(slm(name, namespace) for name in names))
    for share in (10, 20, 30):
        until("some are made", lambda share=share: audit.writes(namespace)["deployments"] >= share)
        operator.kill()
        operator.start()
    assert_complete(plane, audit, namespace, names)


def test_two_operators_at_once(plane, start, namespace, apply) -> None:
    """Without the Lease between them: they hold two of different names."""
    start(lease="one", pod="one")
    start(lease="two", pod="two")
    names = [f"a{number}" for number in range(20)]
    audit = Audit(plane)
    apply(*(slm(name, namespace) for name in names))
    assert_complete(plane, audit, namespace, names)
    audit = Audit(plane)
    assert not audit.settled(namespace, seconds=8)


def test_the_lease_passes_from_hand_to_hand(plane, start, namespace, apply) -> None:
    first = start(pod="one")
    second = start(pod="two", acting=False)
    assert second.state() == "waiting for the lease"
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    assert second.metric("slm_operator_leader") == 0.0

    assert first.stop() == 0
    until("the second one acts", lambda: second.state() == "acting")
    apply(slm("b", namespace))
    wait_ready(plane, namespace, "b")

    third = start(pod="three", acting=False)
    second.kill()
    until("the third one acts", lambda: third.state() == "acting")


def test_a_lost_lease_ends_the_process(plane, operator, namespace) -> None:
    patch = json.dumps({"spec": {"holderIdentity": "thief"}})
    plane.kubectl("-n", "default", "patch", "lease", "slm-operator", "--type=merge", "-p", patch)
    assert operator.wait() == 3
    assert "held by thief" in operator.log.read_text()
    plane.kubectl("-n", "default", "delete", "lease", "slm-operator")


def test_a_wrong_configuration_ends_the_process_with_a_sentence(plane, tmp_path) -> None:
    wrong = Operator(plane, tmp_path, workers="many")
    wrong.launch()
    assert wrong.wait() == 2
    assert "workers: Input should be a valid integer" in wrong.log.read_text()


def test_a_port_in_use_ends_the_process_with_a_sentence(plane, operator: Operator, tmp_path) -> None:
    second = Operator(plane, tmp_path, pod="two", port=operator.port)
    second.launch()
    assert second.wait() == 4
    assert "address already in use" in second.log.read_text()


def test_one_namespace_only(plane, start: Callable[..., Operator], namespace, apply) -> None:
    plane.kubectl("create", "namespace", f"{namespace}-other")
    audit = Audit(plane)
    start(namespaces=[namespace])
    apply(slm("a", f"{namespace}-other"), slm("a", namespace))
    wait_ready(plane, namespace, "a")
    assert get(plane, f"{namespace}-other", "slm/a", "{.status}") == '{"observedGeneration":-1}'
    everywhere = [
        event["objectRef"]["resource"]
        for event in audit.requests()
        if event["verb"] in {"list", "watch"} and "namespace" not in event["objectRef"]
    ]
    assert set(everywhere) == {"nodes"}
    plane.kubectl("delete", "namespace", f"{namespace}-other", "--wait=false")
