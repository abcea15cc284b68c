"""A signature is found wherever the model comes from, and what it doesn't cover isn't kept."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, SignerKind, VerificationConfig
from slm_runtime.errors import SignatureInvalid, SignatureMissing
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.sources.site import Site
from tests.support.hub import hub_server
from tests.support.registry import TITLE, registry_server, tar
from tests.support.signing import KeySigner
from tests.support.web import web_server

ANNA = KeySigner()
REQUIRED = VerificationConfig(signers=SignerKind.PUBLIC_KEY)
IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar"
DATED = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}


@dataclass(frozen=True)
class Store:
    uri: str
    publish: Callable[[dict[str, bytes]], None]
    """Have exactly these files."""
    site: Site


def in_hub(site: Site, stack: ExitStack) -> Store:
    hub = stack.enter_context(hub_server())
    site = dataclasses.replace(site, environment={**site.environment, "HF_ENDPOINT": hub.endpoint})

    def publish(files: dict[str, bytes]) -> None:
        hub.publish("org/repo", files)

    return Store("hf://org/repo/q4/m.gguf", publish, site)


def in_registry(site: Site, stack: ExitStack) -> Store:
    registry = stack.enter_context(registry_server())

    def publish(files: dict[str, bytes]) -> None:
        layers = [registry.blob(data, annotations={TITLE: path}) for path, data in files.items()]
        registry.push("team/m:1", *layers)

    return Store(f"oci://{registry.host}/team/m:1", publish, site)


def in_layer(site: Site, stack: ExitStack) -> Store:
    registry = stack.enter_context(registry_server())

    def publish(files: dict[str, bytes]) -> None:
        registry.push("team/m:1", registry.blob(tar(*files.items()), IMAGE_LAYER))

    return Store(f"oci://{registry.host}/team/m:1", publish, site)


def in_bucket(site: Site, stack: ExitStack) -> Store:
    web = stack.enter_context(web_server())
    endpoint = web.url("").rstrip("/")
    site = dataclasses.replace(site, environment={**site.environment, "AWS_ENDPOINT_URL_S3": endpoint})

    def publish(files: dict[str, bytes]) -> None:
        web.files.clear()
        for path, data in files.items():
            web.put(f"bucket/{path}", data, headers=DATED)

    return Store("s3://bucket/q4/m.gguf", publish, site)


def on_claim(site: Site, _: ExitStack) -> Store:
    folder = site.places.model_dir.parent / "claim"
    folder.mkdir()

    def publish(files: dict[str, bytes]) -> None:
        for path, data in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(data)

    site = dataclasses.replace(site, places=dataclasses.replace(site.places, source_dir=folder))
    return Store("pvc://models/q4/m.gguf", publish, site)


@pytest.fixture(params=[in_hub, in_registry, in_layer, in_bucket, on_claim], ids=lambda each: each.__name__)
def store(request: pytest.FixtureRequest, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    # The object stores' client reads this process's environment too, and makes no client that trusts nobody.
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("SSL_CERT_DIR")
    monkeypatch.setenv("NO_PROXY", "*")
    site.places.signers.write_bytes(ANNA.trusted)
    with ExitStack() as stack:
        yield request.param(site, stack)


@pytest.fixture(params=["q4/m.gguf.sig", "q4/model.sig", "model.sig"])
def signed(request: pytest.FixtureRequest, tiny: bytes, tmp_path: Path) -> dict[str, bytes]:
    """A repository with a signed model, and the signature in one of its places."""
    root = tmp_path / "signed"
    file = root / "q4/m.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(tiny)
    place = request.param
    what = {"q4/m.gguf.sig": file, "q4/model.sig": file.parent, "model.sig": root}[place]
    return {"q4/m.gguf": tiny, place: ANNA.sign(what)}


def fetch(store: Store) -> Fetch:
    model = ModelConfig(name="m", source=store.uri, verification=REQUIRED)
    return Fetch(model, store.site, patience=Patience(first_wait=0.001))


def test_a_signed_model_is_accepted(store: Store, signed: dict[str, bytes], tiny: bytes) -> None:
    store.publish(signed)
    fetched = fetch(store).run()
    assert fetched.model.facts.signed_by == ANNA.fingerprint
    assert fetched.model.path.read_bytes() == tiny


def test_a_model_that_nobody_signed_is_refused(store: Store, tiny: bytes) -> None:
    store.publish({"q4/m.gguf": tiny})
    refused = fetch(store)
    with pytest.raises(SignatureMissing):
        refused.run()
    assert refused.folder.fetched() is None


def test_a_model_that_was_changed_since_is_refused(
    store: Store, signed: dict[str, bytes], tiny: bytes
) -> None:
    store.publish(signed | {"q4/m.gguf": tiny + b"\0"})
    refused = fetch(store)
    with pytest.raises(SignatureInvalid):
        refused.run()
    assert refused.folder.fetched() is None
