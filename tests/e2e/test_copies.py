"""Models on a node's own disk: there before a pod comes, shared by those that come, and gone when nobody uses them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.site import Document, Namespace, Site
from tests.e2e.source import CA, Source, source
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e

FOLDER: Final = "/var/lib/slm-e2e-models"
ADMINISTRATOR: Final = "node-models"
CHILDREN: Final = (
    "deployments,daemonsets,jobs,pods,services,secrets,configmaps,persistentvolumeclaims,controllerrevisions,"
    "poddisruptionbudgets"
)


@dataclass(frozen=True)
class NodeFolder:
    """The directory of the node that the site has for models, as its administrator sees it."""

    site: Site

    def run(self, script: str) -> str:
        return self.site.kubectl("exec", ADMINISTRATOR, "-n", "kube-system", "--", "sh", "-c", script)

    def models(self, ns: Namespace) -> set[str]:
        """Folders of models that a namespace has there."""
        return set(self.run(f"ls /models/{ns.name} 2>/dev/null || true").split())

    def let_a_day_pass(self, ns: Namespace, folder: str) -> None:
        """As it is for a model that no pod has started with for two days."""
        path = f"/models/{ns.name}/{folder}"
        self.run(
            f"cd {path} && touch -d '2 days ago' .lock && (! test -e .unused || touch -d '2 days ago' .unused)"
        )


@contextmanager
def node_folder(site: Site) -> Iterator[NodeFolder]:
    """A directory of the node that pods of any user may write, as the chart's values ask for."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": ADMINISTRATOR, "namespace": "kube-system"},
        "spec": {
            "nodeName": site.cluster.node_name,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "administrator",
                    "image": site.runtime_image,
                    "command": ["sh", "-c", "rm -rf /models/*; chmod 1777 /models; exec sleep infinity"],
                    "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
                    "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                }
            ],
            "volumes": [{"name": "models", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}],
        },
    }
    site.kubectl("apply", "-f", "-", input=json.dumps(pod))
    ready = ("--for=condition=Ready", "--timeout=60s")
    site.kubectl("wait", f"pod/{ADMINISTRATOR}", "-n", "kube-system", *ready)
    folder = NodeFolder(site)
    yield folder
    folder.run("rm -rf /models/*")
    site.kubectl("delete", "pod", ADMINISTRATOR, "-n", "kube-system")


@dataclass(frozen=True)
class Node:
    """The node with its directory, and a namespace whose pods may mount it."""

    ns: Namespace
    server: Source
    folder: NodeFolder

    def spec(self, name: str, **more: Any) -> Document:
        return {
            "model": {"name": "tiny", "source": self.server.url(f"{name}.gguf"), "caBundle": CA},
            "runtime": {"contextLength": 512, "parallel": 1},
            "cache": {"mode": "NodeLocal", "prePull": True},
            **more,
        }

    def copies(self) -> Document | None:
        return self.ns.status("local").get("cache", {}).get("copies")

    def wait_for_copies(self) -> None:
        """Wait until the copies are those of the present model, and all there."""

        def there() -> bool:
            live = self.ns.site.get("daemonset", self.ns.name, "local-copies")
            if live is None:
                return False
            status, generation = live["status"], live["metadata"]["generation"]
            told = self.copies() == {"wanted": 1, "ready": 1, "failed": 0}
            return (
                told
                and status.get("observedGeneration") == generation
                and status.get("updatedNumberScheduled") == 1
            )

        self.ns.site.eventually("the node has its copy", there)

    def serving(self) -> Document:
        """The serving pod, when those before it have let their model go."""
        selector = "app.kubernetes.io/instance=local,app.kubernetes.io/component=runtime"

        def alone() -> list[Document] | None:
            pods = self.ns.site.list("pods", self.ns.name, "-l", selector)
            return pods if len(pods) == 1 else None

        (pod,) = self.ns.site.eventually("one serving pod is there", alone)
        found: Document = pod
        return found

    def restart(self) -> None:
        """Let another serving pod come."""
        name = self.serving()["metadata"]["name"]
        self.ns.site.kubectl("delete", "pod", name, "-n", self.ns.name)
        self.ns.wait_ready("local")


def fetched(pod: Document) -> Document:
    """What the fetch of a pod said at its end."""
    (container,) = pod["status"]["initContainerStatuses"]
    report: Document = json.loads(container["state"]["terminated"]["message"])
    return report


def served_folder(pod: Document) -> str:
    """The folder on the node that the pod's configuration names."""
    (serve,) = pod["spec"]["containers"]
    config = json.loads(next(each["value"] for each in serve["env"] if each["name"] == "SLM_CONFIG"))
    return str(config["model"]["pin"]["digest"][:16])


@pytest.fixture
def node(site: Site, tmp_path: Path) -> Iterator[Node]:
    with (
        node_folder(site) as folder,
        site.namespace("copies", level="privileged") as ns,
        source(ns, site.runtime_image) as server,
    ):
        for seed, name in enumerate(("first", "second")):
            server.put(f"{name}.gguf", write_tiny_gguf(tmp_path / f"{name}.gguf", seed=seed).read_bytes())
        site.install(nodeCache={"path": FOLDER})
        yield Node(ns, server, folder)
        site.kubectl("delete", "slm", "--all", "-n", ns.name)
        site.eventually("no pod is left", lambda: not ns.pods("local"))
        site.install()


def test_a_model_is_on_the_node_before_its_pods_and_leaves_it_when_nobody_uses_it(node: Node) -> None:
    ns, site = node.ns, node.ns.site
    ns.apply("local", node.spec("first", replicas=0))
    node.wait_for_copies()
    (first,) = node.folder.models(ns)

    node.server.go_down()
    ns.apply("local", node.spec("first"))
    ns.wait_ready("local")
    assert served_folder(node.serving()) == first
    assert fetched(node.serving())["cached"] is True, "its source is down: the node's copy was all there is"
    ns.answers("local")
    node.server.come_up()

    ns.apply("local", node.spec("second"))
    ns.wait_ready("local")
    node.wait_for_copies()
    second = served_folder(node.serving())
    assert node.folder.models(ns) == {first, second}, "for a day others may come back to it"
    for _ in ("it is found without use", "it has been so for a day"):
        node.folder.let_a_day_pass(ns, first)
        node.restart()
    assert node.folder.models(ns) == {second}

    site.kubectl("delete", "slm", "local", "-n", ns.name)

    def left() -> str:
        names = site.kubectl(
            "get", CHILDREN, "-n", ns.name, "-l", "app.kubernetes.io/instance=local", "-o", "name"
        )
        return names.strip()

    site.eventually("nothing of it is left in the cluster", lambda: not left())
    assert node.folder.models(ns) == {second}, "nodes where nothing starts any more keep what they have"


def test_a_copy_that_cannot_be_fetched_is_counted(node: Node) -> None:
    """And the serving pod says why: copies keep nobody from serving, and are no fault of their own."""
    node.ns.apply("local", node.spec("first", replicas=0))
    node.wait_for_copies()
    (first,) = node.folder.models(node.ns)
    node.ns.site.kubectl("delete", "slm", "local", "-n", node.ns.name)
    node.ns.site.eventually("no pod is left", lambda: not node.ns.pods("local"))
    node.folder.run(f"rm -rf /models/{node.ns.name}/{first} && chmod 0555 /models/{node.ns.name}")
    node.ns.apply("local", node.spec("first"))
    node.ns.site.eventually(
        "the copy has failed", lambda: node.copies() == {"wanted": 1, "ready": 0, "failed": 1}
    )
    node.ns.wait_reason("local", "Ready", "StorageUnusable")
    node.folder.run(f"chmod 1777 /models/{node.ns.name}")
    node.ns.wait_ready("local", after_failure=True)
    node.wait_for_copies()
