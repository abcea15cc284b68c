"""Models in an image that kubelet has pulled and mounted: looked at by the registry, served where they lie."""

import dataclasses
import hashlib
import shutil
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, SignerKind, VerificationConfig
from slm_runtime.errors import (
    ChecksumMismatch,
    RuntimeFailure,
    SignatureMissing,
    SourceInvalid,
    SourceNotFound,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.models.sources.site import Site
from tests.support.registry import Registry, registry_server, tar
from tests.support.signing import KeySigner

LAYER = "application/vnd.oci.image.layer.v1.tar"
ANNA = KeySigner()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        yield server


@pytest.fixture
def site(site: Site, tmp_path: Path) -> Site:
    return dataclasses.replace(site, places=dataclasses.replace(site.places, source_dir=tmp_path / "image"))


class Node:
    """Pulls images, and mounts them."""

    def __init__(self, registry: Registry, site: Site) -> None:
        self._registry = registry
        self._site = site

    def mount(self, *layers: bytes, path: str = "", **more: object) -> ModelConfig:
        """Push an image of these layers, look at it, and mount it; answer what a pod is told of it."""
        self._registry.push("team/tiny:1", *(self._registry.blob(each, LAYER) for each in layers))
        source = f"oci://{self._registry.host}/team/tiny:1{path}"
        asked = ModelConfig.model_validate({"name": "m", "source": source, "mounted": True, **more})
        pin = inspect(source, self._site, verification=asked.verification).pin
        for each in layers:
            with tarfile.open(fileobj=BytesIO(each)) as archive:
                archive.extractall(self._site.places.source_dir, filter="data")
        return asked.model_copy(update={"pin": pin})


@pytest.fixture
def node(registry: Registry, site: Site) -> Node:
    return Node(registry, site)


def refusal(model: ModelConfig, site: Site) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        Fetch(model, site).run()
    return caught.value


def test_a_model_is_served_where_it_is_mounted(node: Node, site: Site, tiny: bytes) -> None:
    model = node.mount(tar(("models/tiny.gguf", tiny)))
    fetch = Fetch(model, site)
    fetched = fetch.run().model
    assert fetched.path.resolve() == (site.places.source_dir / "models/tiny.gguf").resolve()
    assert fetched.facts.sha256 == hashlib.sha256(tiny).hexdigest()
    assert fetched.facts.pin == model.pin
    assert fetch.latest() == model.pin


@pytest.mark.parametrize("path", ["#models/tiny.gguf", "#/models/", "#models", "#./models/*.gguf", ""])
def test_a_path_is_below_the_image_s_root(node: Node, site: Site, tiny: bytes, path: str) -> None:
    below = tar(("models/tiny.gguf", tiny), ("models/README.md", b"# A model"))
    model = node.mount(tar(("etc/passwd", b"root")), below, path=path)
    assert Fetch(model, site).run().model.path.read_bytes() == tiny


def test_that_the_tag_has_moved_is_seen_and_what_was_pinned_is_served(
    node: Node, registry: Registry, site: Site, tiny: bytes
) -> None:
    model = node.mount(tar(("tiny.gguf", tiny)))
    other = registry.push("team/tiny:1", registry.blob(tar(("tiny.gguf", tiny), ("new", b"1")), LAYER))
    fetch = Fetch(model, site)
    assert fetch.run().model.facts.pin == model.pin
    latest = fetch.latest()
    assert latest is not None
    assert latest.revision == other


def test_a_registry_that_is_gone_is_not_asked(
    node: Node, registry: Registry, site: Site, tiny: bytes
) -> None:
    model = node.mount(tar(("tiny.gguf", tiny)))
    registry.close()
    fetch = Fetch(model, site)
    assert fetch.run().model.path.read_bytes() == tiny
    assert fetch.latest() is None


def test_an_image_that_is_not_mounted_is_told_and_waited_for(node: Node, site: Site, tiny: bytes) -> None:
    """An API server whose feature gate is off leaves the volume out of the pod."""
    model = node.mount(tar(("tiny.gguf", tiny)))
    shutil.rmtree(site.places.source_dir)
    failure = refusal(model, site)
    assert isinstance(failure, SourceNotFound)
    assert failure.permanent
    assert "isn't mounted" in failure.message
    assert "ImageVolume" in failure.remedy


def test_an_artifact_of_which_nothing_is_mounted_is_told(node: Node, site: Site, tiny: bytes) -> None:
    """As containerd does it: its layers are no archives."""
    model = node.mount(tar(("tiny.gguf", tiny)))
    (site.places.source_dir / "tiny.gguf").unlink()
    failure = refusal(model, site)
    assert isinstance(failure, SourceNotFound)
    assert "spec.cache.mode" in failure.remedy


def test_the_spec_s_checksum_is_held_against_what_is_mounted(node: Node, site: Site, tiny: bytes) -> None:
    model = node.mount(tar(("tiny.gguf", tiny)), sha256=64 * "a")
    assert isinstance(refusal(model, site), ChecksumMismatch)


def test_a_link_out_of_the_image_is_refused(node: Node, site: Site, tiny: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret.gguf").write_bytes(tiny)
    model = node.mount(tar(("tiny.gguf", tiny)), path="#tiny.gguf")
    file = site.places.source_dir / "tiny.gguf"
    file.unlink()
    file.symlink_to(tmp_path / "secret.gguf")
    failure = refusal(model, site)
    assert isinstance(failure, SourceInvalid)
    assert "out of the image" in failure.message


REQUIRED = VerificationConfig(signers=SignerKind.PUBLIC_KEY)


def test_a_signature_in_the_image_is_verified(node: Node, site: Site, tiny: bytes, tmp_path: Path) -> None:
    site.places.signers.write_bytes(ANNA.trusted)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(tiny)
    signed = tar(("tiny.gguf.sig", ANNA.sign(file)), ("tiny.gguf", tiny))
    model = node.mount(signed, verification=REQUIRED)
    assert Fetch(model, site).run().model.facts.signed_by == ANNA.fingerprint


def test_an_image_that_nobody_signed_is_refused_before_it_is_pulled(
    node: Node, site: Site, tiny: bytes
) -> None:
    site.places.signers.write_bytes(ANNA.trusted)
    with pytest.raises(SignatureMissing):
        node.mount(tar(("tiny.gguf", tiny)), verification=REQUIRED)
    assert not site.places.source_dir.exists()
