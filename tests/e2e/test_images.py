"""Models in images that the node pulls and mounts: `spec.cache.mode: Image`."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.host import architecture
from tests.e2e.site import Document, Namespace, Site
from tests.e2e.source import CA, Source, source
from tests.support.gguf import write_tiny_gguf
from tests.support.registry import MANIFEST, OCTETS, TITLE, tar

pytestmark = pytest.mark.e2e

CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
REGISTRY: Final = "127.0.0.1:5001"
"""Of the node itself: there container runtimes ask without TLS."""
NOWHERE: Final = "127.0.0.1:5002"
"""Of the node too, and nobody listens."""
FACADE: Final = """
import http.server, ssl, urllib.error, urllib.request
trusting = ssl._create_unverified_context()
class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Who tries TLS first goes on without it where the answer looks like HTTP.
    default_request_version = "HTTP/1.1"
    def do_GET(self):
        sent = {name: self.headers[name] for name in ("Accept", "Range") if name in self.headers}
        asked = urllib.request.Request("@" + self.path, headers=sent, method=self.command)
        try:
            answer = urllib.request.urlopen(asked, context=trusting)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest"):
                if name in answer.headers: self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.read())
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", 5001), Registry).serve_forever()
"""


@contextmanager
def registry_of_the_node(site: Site, server: Source) -> Iterator[None]:
    """The source under an address that the node's container runtime asks; pods ask the source itself."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "node-registry", "namespace": "kube-system"},
        "spec": {
            "nodeName": site.cluster.node_name,
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "registry",
                    "image": site.runtime_image,
                    "command": ["python", "-c", FACADE.replace('"@"', repr(server.url("").rstrip("/")))],
                    "readinessProbe": {
                        "exec": {"command": ["python", "-c", _CONNECT]},
                        "periodSeconds": 1,
                        "timeoutSeconds": 5,
                    },
                }
            ],
        },
    }
    site.kubectl("apply", "-f", "-", input=json.dumps(pod))
    ready = ("--for=condition=Ready", "--timeout=60s")
    site.kubectl("wait", "pod/node-registry", "-n", "kube-system", *ready)
    yield
    site.kubectl("delete", "pod", "node-registry", "-n", "kube-system")


_CONNECT: Final = "import socket; socket.create_connection(('127.0.0.1', 5001), 3)"


@dataclass(frozen=True)
class Images:
    """A repository of images with one model each."""

    ns: Namespace
    server: Source
    models: tuple[bytes, bytes]

    def push(self, tag: str, model: bytes) -> str:
        """Publish an image; answer its digest."""
        layer = tar(("models/tiny.gguf", model))
        config = {
            "architecture": architecture(),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        return self._push(tag, (json.dumps(config).encode(), CONFIG), (layer, LAYER))

    def push_artifact(self, tag: str, model: bytes) -> str:
        """Publish what is no image; answer its digest."""
        return self._push(tag, (b"{}", "application/vnd.oci.empty.v1+json"), (model, OCTETS), TITLE)

    def _push(self, tag: str, config: tuple[bytes, str], layer: tuple[bytes, str], title: str = "") -> str:
        described = [
            {"mediaType": kind, "digest": _digest(content), "size": len(content)}
            for content, kind in (config, layer)
        ]
        if title:
            described[1]["annotations"] = {title: "tiny.gguf"}
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
        ).encode()
        digest = _digest(manifest)
        for content, _ in (config, layer):
            self.server.put(f"v2/team/tiny/blobs/{_digest(content)}", content)
        says = {"Content-Type": MANIFEST, "Docker-Content-Digest": digest}
        for reference in (tag, digest):
            self.server.put(f"v2/team/tiny/manifests/{reference}", manifest, says=says)
        return digest

    def spec(self, tag: str, *, registry: str = REGISTRY) -> Document:
        return {
            "model": {
                "name": "tiny",
                "source": f"oci://{registry}/team/tiny:{tag}",
                "caBundle": CA,
                "mirrors": [{"source": f"oci://{registry}/", "mirror": self.server.url("")}],
            },
            "runtime": {"contextLength": 512, "parallel": 1},
            "cache": {"mode": "Image"},
        }


@pytest.fixture(scope="module")
def images(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    folder = Path(tmp_path_factory.mktemp("images"))
    one, other = (write_tiny_gguf(folder / f"{seed}.gguf", seed=seed).read_bytes() for seed in (0, 1))
    with (
        site.namespace("images") as ns,
        source(ns, site.runtime_image) as server,
        registry_of_the_node(site, server),
    ):
        yield Images(ns, server, (one, other))


def test_a_model_is_served_out_of_its_image(images: Images) -> None:
    ns, server = images.ns, images.server
    digest = images.push("1", images.models[0])
    ns.apply("mounted", images.spec("1"))
    model = ns.wait_ready("mounted")["model"]
    assert model["revision"] == digest
    assert model["sha256"] == hashlib.sha256(images.models[0]).hexdigest()
    ns.answers("mounted")
    (pod,) = ns.pods("mounted")
    (mounted,) = (each["image"] for each in pod["spec"]["volumes"] if "image" in each)
    assert mounted["reference"] == f"{REGISTRY}/team/tiny@{digest}"
    script = "readlink -f /models/*/tiny.gguf; find /models -type f -size +64k"
    found = ns.site.kubectl(
        "exec", pod["metadata"]["name"], "-n", ns.name, "-c", "serve", "--", "sh", "-c", script
    )
    assert found.split() == ["/source/models/tiny.gguf"], "nothing is copied"

    images.push("1", images.models[1])
    restart(ns)
    ns.wait_reason("mounted", "SourceDrifted", "SourceMoved")
    assert ns.status("mounted")["model"]["revision"] == digest
    server.go_down()
    try:
        restart(ns)
        ns.answers("mounted")
    finally:
        server.come_up()
    ns.site.kubectl("delete", "slm", "mounted", "-n", ns.name)


def test_an_image_that_the_node_cannot_pull_is_named(images: Images) -> None:
    digest = images.push("2", images.models[0])
    images.ns.apply("nowhere", images.spec("2", registry=NOWHERE))
    images.ns.wait_reason("nowhere", "Ready", "ImagePullFailed")
    message = images.ns.condition("nowhere", "Ready")["message"]
    assert f"image {NOWHERE}/team/tiny@{digest} can't be pulled" in message
    images.ns.site.kubectl("delete", "slm", "nowhere", "-n", images.ns.name)


def test_an_artifact_of_which_the_node_mounts_nothing_is_told(images: Images) -> None:
    """As containerd does; CRI-O mounts it, and then it serves."""
    node = json.loads(images.ns.site.kubectl("get", "node", images.ns.site.cluster.node_name, "-o", "json"))
    if not node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://"):
        pytest.skip("containerd alone mounts nothing of an artifact")
    images.push_artifact("3", images.models[0])
    images.ns.apply("artifact", images.spec("3"))
    images.ns.wait_reason("artifact", "Ready", "SourceNotFound")
    assert "another spec.cache.mode" in images.ns.condition("artifact", "Ready")["message"]
    (pod,) = images.ns.pods("artifact")
    (fetch,) = pod["status"]["initContainerStatuses"]
    assert fetch["restartCount"] <= 1, "it stays, and looks on"
    images.ns.site.kubectl("delete", "slm", "artifact", "-n", images.ns.name)


def restart(ns: Namespace) -> None:
    """Let another pod come."""
    (pod,) = ns.pods("mounted")
    ns.site.kubectl("delete", "pod", pod["metadata"]["name"], "-n", ns.name)
    ns.wait_ready("mounted")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
