"""Several nodes: replicas apart, a node that is drained, one that is lost, and a volume that only one node has."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.kind import KindCluster
from tests.e2e.load import steady_load
from tests.e2e.models import Models, serving
from tests.e2e.site import SYSTEM_NAMESPACE, Document, Namespace, Site
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e

DISK = "e2e-disk"
FOLDER = "/var/lib/slm-e2e-disk"


@pytest.fixture
def models(wide_site: Site) -> Iterator[Models]:
    with serving(wide_site) as models:
        yield models


def nodes(ns: Namespace, name: str) -> set[str]:
    """Where the pods run that serve the SLMDeployment *name*."""
    wanted = f"app.kubernetes.io/instance={name},app.kubernetes.io/component=runtime"
    return {pod["spec"]["nodeName"] for pod in ns.site.list("pods", ns.name, "-l", wanted)}


def pulls(ns: Namespace, name: str) -> dict[str, str]:
    """Where the pods of the Jobs ran that pulled for *name*: events outlive them."""
    scheduled = ns.site.list("events", ns.name, "--field-selector=reason=Scheduled")
    pods = {each["involvedObject"]["name"]: each["message"].rpartition(" ")[2] for each in scheduled}
    return {pod: node for pod, node in pods.items() if pod.startswith(f"{name}-pull-")}


@contextmanager
def drained(site: Site, node: str, name: str) -> Iterator[None]:
    """*node* takes no pods, and those of the model *name* are evicted from it, as before its maintenance."""
    mine = f"--pod-selector=app.kubernetes.io/instance={name}"
    try:
        site.kubectl("drain", node, mine, "--delete-emptydir-data", "--timeout=180s")
        yield
    finally:
        site.kubectl("uncordon", node)


def test_replicas_are_apart_and_a_drain_loses_no_request(models: Models) -> None:
    ns = models.ns
    both = nodes(ns, "two")
    assert len(both) == 2
    drain = min(both)
    with steady_load(ns, "two") as load, drained(ns.site, drain, "two"):
        ns.site.eventually(
            "two pods run on the other node", lambda: nodes(ns, "two") == both - {drain}, seconds=180
        )
        ns.wait_ready("two")
    assert not load.failures, load


def test_a_lost_node_takes_one_replica_and_not_the_service(workers: KindCluster, models: Models) -> None:
    ns = models.ns
    (operator,) = ns.site.list("pods", SYSTEM_NAMESPACE)
    (lost,) = nodes(ns, "two") - {operator["spec"]["nodeName"]}
    with workers.lost(lost):
        ns.site.eventually(
            "the lost replica is known to be", lambda: ns.status("two").get("readyReplicas") == 1, seconds=180
        )
        for _ in range(5):  # the Service spreads connections over what it takes for ready
            ns.answers("two")
    ns.site.eventually(
        "both replicas are back", lambda: ns.status("two").get("readyReplicas") == 2, seconds=180
    )
    ns.wait_ready("two", after_failure=True)


@contextmanager
def disk(ns: Namespace) -> Iterator[None]:
    """A volume that any node can have and one at a time should, as a network disk; what is on it differs by node."""
    workers = json.loads(ns.site.kubectl("get", "nodes", "-o", "json"))["items"]
    names = [each["metadata"]["name"] for each in workers if not each["spec"].get("taints")]
    mount = {"name": "disk", "mountPath": "/disk"}
    prepare = {
        "restartPolicy": "Never",
        "volumes": [{"name": "disk", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}],
        "containers": [
            {
                "name": "prepare",
                "image": ns.site.runtime_image,
                "command": ["sh", "-c", "rm -rf /disk/* && chmod 0777 /disk"],
                "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
                "volumeMounts": [mount],
            }
        ],
    }
    pods: list[Document] = [
        {"kind": "Pod", "metadata": {"name": f"prepare-{name}"}, "spec": {**prepare, "nodeName": name}}
        for name in names
    ]
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": DISK,
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": FOLDER},
    }
    volume = {"kind": "PersistentVolume", "metadata": {"name": DISK}, "spec": spec}
    items = [{"apiVersion": "v1", **each} for each in (*pods, volume)]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    ns.site.kubectl("apply", "-n", "kube-system", "-f", "-", input=manifest)
    prepared = [f"pod/{pod['metadata']['name']}" for pod in pods]
    try:
        done = "--for=jsonpath={.status.phase}=Succeeded"
        ns.site.kubectl("wait", *prepared, "-n", "kube-system", done, "--timeout=60s")
        yield
    finally:
        ns.site.kubectl("delete", *prepared, "-n", "kube-system")
        ns.site.kubectl("delete", f"pv/{DISK}", "--wait=false")


def test_the_next_model_is_pulled_where_the_volume_is(models: Models, tmp_path: Path) -> None:
    """The other node is the emptier one, and the volume can't be attached there while the old pod has it."""
    ns = models.ns
    models.source.put("next.gguf", write_tiny_gguf(tmp_path / "next.gguf", name="next").read_bytes())
    cache = {"mode": "PVC", "size": "1Gi", "storageClassName": DISK}
    with disk(ns):
        models.apply("one", cache=cache)
        ns.wait_ready("one")
        (before,), earlier = nodes(ns, "one"), pulls(ns, "one")
        models.apply("one", cache=cache, model={"source": models.source.url("next.gguf")})
        ns.wait_ready("one")
        ns.answers("one")
        later = [node for pod, node in pulls(ns, "one").items() if pod not in earlier]
        assert later == [before]
        assert nodes(ns, "one") == {before}
        ns.site.kubectl("delete", "slm", "one", "-n", ns.name)
