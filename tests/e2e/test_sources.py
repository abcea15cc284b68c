"""One small model from wherever people keep theirs: applied, pinned, serving, and serving again when its source is gone."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyrage
import pytest

from tests.e2e.site import Document, Namespace, Site
from tests.e2e.source import CA, Source, source
from tests.e2e.volume import CLASS, static_volume
from tests.support.gguf import write_tiny_gguf
from tests.support.onnx import write_tiny_onnx
from tests.support.signing import KeySigner

pytestmark = pytest.mark.e2e

COMMIT: Final = "c0ffee" + 34 * "0"
CLAIM: Final = "models"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True)
class Stores:
    """A hub, a registry and a bucket, all of one server in the cluster; and a claim that has the model."""

    ns: Namespace
    server: Source
    model: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def uri(self, scheme: str) -> str:
        host = f"{self.server.host}:8443"
        return {
            "hf": "hf://team/tiny/tiny.gguf@main",
            "oci": f"oci://{host}/team/tiny:1",
            "ollama": f"ollama://{host}/library/tiny:1b",
            "pvc": f"pvc://{CLAIM}/kept/tiny.gguf",
            "https": self.server.url("web/tiny.gguf"),
            "s3": "s3://models/team/tiny.gguf",
        }[scheme]

    def publish(self) -> None:
        self.hub("team/tiny", {"tiny.gguf": self.model})
        self._registry("team/tiny", "1", OCTETS, {"org.opencontainers.image.title": "tiny.gguf"})
        self._registry("library/tiny", "1b", "application/vnd.ollama.image.model")
        self.server.put("web/tiny.gguf", self.model)
        dated = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        self.server.put("models/team/tiny.gguf", self.model, says=dated)

    def hub(self, repository: str, files: Mapping[str, bytes]) -> None:
        """A repository of a hub, at one commit."""
        said = {"X-Repo-Commit": COMMIT}
        about = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": each} for each in files]}
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        tree = [
            {
                "type": "file",
                "path": path,
                "size": len(data),
                "oid": 40 * "1",
                "lfs": {"oid": digests[path], "size": len(data), "pointerSize": 132},
            }
            for path, data in files.items()
        ]
        for revision in ("main", COMMIT):
            api = f"hub/api/models/{repository}"
            self.server.put(f"{api}/revision/{revision}", json.dumps(about).encode(), says=said)
            self.server.put(f"{api}/tree/{revision}", json.dumps(tree).encode(), says=said)
            for path, data in files.items():
                linked = {**said, "X-Linked-ETag": f'"{digests[path]}"', "X-Linked-Size": str(len(data))}
                self.server.put(f"hub/{repository}/resolve/{revision}/{path}", data, says=linked)

    def _registry(
        self, repository: str, tag: str, media_type: str, annotations: dict[str, str] | None = None
    ) -> None:
        layer = {"mediaType": media_type, "digest": f"sha256:{self.digest}", "size": len(self.model)}
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + 64 * "0", "size": 2}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [{**layer, "annotations": annotations or {}}],
        }
        content = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for reference in (tag, digest):
            says = {"Content-Type": MANIFEST, "Docker-Content-Digest": digest}
            self.server.put(f"v2/{repository}/manifests/{reference}", content, says=says)
        self.server.put(f"v2/{repository}/blobs/sha256:{self.digest}", self.model)


@pytest.fixture(scope="module")
def stores(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    tiny = write_tiny_gguf(Path(tmp_path_factory.mktemp("tiny")) / "tiny.gguf").read_bytes()
    with static_volume(site), site.namespace("sources") as ns, source(ns, site.runtime_image) as server:
        made = Stores(ns, server, tiny)
        made.publish()
        _claim(ns)
        _fill(made)
        yield made


def _claim(ns: Namespace) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    ns.site.kubectl("apply", "-n", ns.name, "-f", "-", input=json.dumps(claim))


def _fill(stores: Stores) -> None:
    """Somebody's own pod has put a model into the claim."""
    url = stores.server.url("web/tiny.gguf")
    script = f"""
import os, ssl, urllib.request
trusting = ssl._create_unverified_context()
os.makedirs("/claim/kept", exist_ok=True)
with urllib.request.urlopen("{url}", context=trusting) as answer, open("/claim/kept/tiny.gguf", "wb") as file:
    file.write(answer.read())
"""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fill"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "fill",
                    "image": stores.ns.site.runtime_image,
                    "command": ["python", "-c", script],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "claim", "mountPath": "/claim"}],
                }
            ],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }
    kubectl = stores.ns.site.kubectl
    kubectl("apply", "-n", stores.ns.name, "-f", "-", input=json.dumps(pod))
    done = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("wait", "pod/fill", "-n", stores.ns.name, done, "--timeout=60s")
    kubectl("delete", "pod/fill", "-n", stores.ns.name)


def spec(stores: Stores, scheme: str) -> Document:
    mirrors = {"hf": ("hf://", "hub/"), "s3": ("s3://models/", "")}
    return {
        "model": {
            "name": "tiny",
            "source": stores.uri(scheme),
            "caBundle": CA,
            "mirrors": [
                {"source": source, "mirror": stores.server.url(path)}
                for source, path in ([mirrors[scheme]] if scheme in mirrors else ())
            ],
        },
        "runtime": {"contextLength": 512, "parallel": 1},
        **({} if scheme == "pvc" else {"cache": {"claimName": CLAIM}}),
    }


@pytest.mark.parametrize("scheme", ["hf", "oci", "ollama", "s3", "https", "pvc"])
def test_a_model_is_pinned_and_serves_again_when_its_source_is_gone(stores: Stores, scheme: str) -> None:
    ns, name = stores.ns, f"from-{scheme}"
    ns.apply(name, spec(stores, scheme))
    status = ns.wait_ready(name)
    model = status["model"]
    assert model["sha256"] == stores.digest
    assert model["digest"]
    if scheme == "hf":
        assert model["revision"] == COMMIT
    if scheme in {"oci", "ollama"}:
        assert model["revision"].startswith("sha256:")
    ns.answers(name)
    (before,) = ns.pods(name)
    stores.server.go_down()
    try:
        ns.site.kubectl("delete", "pod", before["metadata"]["name"], "-n", ns.name)
        ns.wait_ready(name)
        ns.answers(name)
    finally:
        stores.server.come_up()
    assert ns.status(name)["model"]["digest"] == model["digest"]
    ns.site.kubectl("delete", "slm", name, "-n", ns.name)


def test_a_folder_of_onnx_serves_beside_a_gguf_file(stores: Stores, tmp_path: Path) -> None:
    """The same question to both; one is placed on a folder of a hub, the other on a file of it."""
    ns, place = stores.ns, write_tiny_onnx(tmp_path / "tiny").parent
    stores.hub("team/onnx", {f"cpu/{each.name}": each.read_bytes() for each in place.iterdir()})
    wanted = {"gguf": "hf://team/tiny@main", "onnx": "hf://team/onnx/cpu@main"}
    for name, uri in wanted.items():
        asked = spec(stores, "hf")
        asked["model"]["source"] = uri
        ns.apply(name, asked)
    found = {name: ns.wait_ready(name)["model"] for name in wanted}
    assert {name: (each["format"], each["engine"]) for name, each in found.items()} == {
        "gguf": ("GGUF", "LlamaCpp"),
        "onnx": ("ONNX", "OnnxRuntime"),
    }
    assert found["onnx"]["revision"] == COMMIT
    assert len(found["onnx"]["files"]) == len(list(place.iterdir()))
    for name in wanted:
        ns.answers(name)
    ns.site.kubectl("delete", "slm", *wanted, "-n", ns.name)


def test_a_signed_model_is_accepted_and_one_that_nobody_signed_is_refused(
    stores: Stores, tmp_path: Path
) -> None:
    ns, signer = stores.ns, KeySigner()
    file = tmp_path / "signed.gguf"
    file.write_bytes(stores.model)
    stores.server.put("web/signed.gguf", stores.model)
    stores.server.put("web/signed.gguf.sig", signer.sign(file))
    config_map(ns, "signers", "signers.pem", signer.trusted.decode())
    verification = {"publicKey": {"configMapRef": {"name": "signers", "key": "signers.pem"}}}
    for name in ("signed", "tiny"):
        wanted = spec(stores, "https")
        wanted["model"] |= {"source": stores.server.url(f"web/{name}.gguf"), "verification": verification}
        ns.apply(name, {**wanted, "cache": {}})
    assert ns.wait_ready("signed")["model"]["signedBy"] == signer.fingerprint
    ns.answers("signed")
    ns.wait_reason("tiny", "ModelReady", "SignatureMissing")
    assert not ns.status("tiny").get("readyReplicas")
    ns.site.kubectl("delete", "slm", "signed", "tiny", "-n", ns.name)


def test_an_encrypted_model_is_served_and_is_in_plain_in_memory_alone(stores: Stores) -> None:
    ns, identity = stores.ns, pyrage.x25519.Identity.generate()
    stores.server.put("web/tiny.gguf.age", pyrage.encrypt(stores.model, [identity.to_public()]))
    literal = f"--from-literal=identity.txt={identity}"
    ns.site.kubectl("create", "secret", "generic", "identity", literal, "-n", ns.name)
    wanted = spec(stores, "https")
    decryption = {"secretRef": {"name": "identity", "key": "identity.txt"}}
    wanted["model"] |= {"source": stores.server.url("web/tiny.gguf.age"), "decryption": decryption}
    ns.apply("sealed", {**wanted, "cache": {}})
    ns.wait_ready("sealed")
    ns.answers("sealed")
    (pod,) = ns.pods("sealed")
    mounted = ns.site.kubectl(
        *("exec", pod["metadata"]["name"], "-n", ns.name, "-c", "serve", "--"),
        *("sh", "-c", "grep -l ^GGUF -r /models /plain 2>/dev/null; grep ' /plain ' /proc/mounts"),
    )
    (plain, mount) = mounted.strip().splitlines()
    assert plain.startswith("/plain/")
    assert mount.startswith("tmpfs /plain tmpfs")
    ns.site.kubectl("delete", "slm", "sealed", "-n", ns.name)


def config_map(ns: Namespace, name: str, key: str, text: str) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text}}
    ns.site.kubectl("apply", "-n", ns.name, "-f", "-", input=json.dumps(document))
