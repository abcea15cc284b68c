"""The single node: pods answer through Services, and nothing of it stays on the host."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.cluster import Cluster, SingleNode, ensure_images, select
from tests.cluster.leftovers import host_state, processes_in
from tests.cluster.node import Record, unavailable

pytestmark = pytest.mark.e2e

single_node = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def web(image: str) -> str:
    """A pod that serves over HTTP, and its Service, as a manifest."""
    metadata = {"name": "web", "labels": {"app": "web"}}
    container = {
        "name": "web",
        "image": image,
        "command": ["python3", "-m", "http.server", "8080", "--directory", "/etc"],
        "securityContext": RESTRICTED,
        "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    ports = [{"port": 80, "targetPort": 8080}]
    items = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": "web"}, "ports": ports},
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace in which ``web`` serves, by an image that was built here."""
    image = ensure_images()["slm-operator"]
    name = cluster.load_image(image.archive, image.name)
    cluster.kubectl("create", "namespace", "harness")
    cluster.kubectl("label", "namespace", "harness", "pod-security.kubernetes.io/enforce=restricted")
    cluster.kubectl("apply", "-n", "harness", "-f", "-", input=web(name))
    cluster.kubectl("wait", "-n", "harness", "pod/web", "--for=condition=Ready", "--timeout=120s")
    yield "harness"
    cluster.kubectl("delete", "namespace", "harness")


def test_a_service_answers_on_this_machine(cluster: Cluster, namespace: str) -> None:
    with cluster.reach(namespace, "web", 80) as address, urlopen(f"http://{address}/hostname") as answer:
        assert answer.read().decode().strip() == "web"


def test_a_pod_finds_a_service_by_name(cluster: Cluster, namespace: str) -> None:
    program = f"from urllib.request import urlopen; print(urlopen('http://web.{namespace}/hostname').status)"
    assert cluster.kubectl("exec", "-n", namespace, "web", "--", "python3", "-c", program).strip() == "200"


def test_a_cluster_named_by_kubeconfig_is_used_and_left_alone(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTER", "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    named = select()
    named.up()
    with named.reach(namespace, "web", 80) as address, urlopen(f"http://{address}/hostname") as answer:
        assert answer.read().decode().strip() == "web"
    named.down()
    assert cluster.is_up()


@single_node
def test_down_leaves_nothing_on_the_host() -> None:
    before = host_state()
    node = SingleNode("leftover")
    image = ensure_images()["slm-operator"]
    try:
        node.up()
        record = Record.read(node.folder / "node.json")
        assert record is not None
        assert record.init is not None
        namespace = str(Path(f"/proc/{record.init.pid}/ns/pid").readlink())
        node.load_image(image.archive, image.name)
        node.kubectl("apply", "-f", "-", input=web(image.name))
        node.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=120s")
        assert host_state() != before
        assert len(processes_in(namespace)) > 8
    finally:
        node.down()
    assert processes_in(namespace) == []
    assert host_state() == before
    assert not node.folder.exists()


@single_node
def test_a_start_that_was_cut_off_is_cleaned_up_by_the_next(capfd: pytest.CaptureFixture[str]) -> None:
    before = host_state()
    node = SingleNode("cutoff", hermetic=True)
    try:
        node.up()
        record = Record.read(node.folder / "node.json")
        assert record is not None
        assert record.init is not None
        os.kill(record.init.pid, signal.SIGKILL)
        assert not node.is_up()
        node.up()
        assert "an earlier run left an unfinished slm-cutoff" in capfd.readouterr().err
        assert node.is_up()
    finally:
        node.down()
    assert host_state() == before


@single_node
def test_of_two_nodes_the_last_puts_the_host_back() -> None:
    before = host_state()
    one, two = SingleNode("one"), SingleNode("two")
    try:
        one.up()
        two.up()
        one.down()
        assert two.is_up()
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    finally:
        one.down()
        two.down()
    assert host_state() == before
