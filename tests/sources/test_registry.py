"""`oci://` and `ollama://` against Docker's registry, with what the vendors' own clients put into it."""

import gzip
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import oras.client
import oras.oci
import oras.provider
import pytest

from slm_contract.config import ModelConfig, PromptConfig, PromptMessage, PromptParameters
from slm_contract.gotemplate import translate
from slm_contract.places import FETCH_ENV
from slm_contract.source import FetchConfig, Mirror
from slm_runtime.errors import SourceNotFound, SourceUnauthorized
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.folder import FetchedModel
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.cluster.certs import Authority
from tests.runtime.api.server import KEY, serving
from tests.sources.docker_registry import PASSWORD, USER, TokenServer, docker_registry, obstacle, passwords
from tests.sources.ollama_server import ollama
from tests.support.gguf import write_tiny_gguf
from tests.support.registry import tar

pytestmark = pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
MODELFILE = '''FROM ./tiny.gguf
SYSTEM """Be kind."""
TEMPLATE """{{ .System }} {{ .Prompt }}"""
PARAMETER temperature 0.25
PARAMETER num_ctx 4096
PARAMETER num_predict 12
PARAMETER stop "<|im_end|>"
PARAMETER stop "END"
MESSAGE user Hi
LICENSE """Do as you like."""
'''
TAR = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its description, as somebody has it who publishes them."""
    folder = tmp_path_factory.mktemp("files")
    write_tiny_gguf(folder / "tiny.gguf")
    (folder / "README.md").write_text("# A model\n")
    shutil.copytree(folder, folder / "model")
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    places = Places(
        model_dir=tmp_path / "models", credentials_dir=tmp_path / "credentials", ca_bundle=tmp_path / "ca.crt"
    )
    return Site(places, {"PIP_CONFIG_FILE": os.devnull})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path) as host:
        yield host


def client(**how: Any) -> oras.client.OrasClient:
    return oras.client.OrasClient(insecure=True, **how)


def push(host: str, name: str, *blobs: tuple[bytes, str, dict[str, str]], folder: Path) -> None:
    """Publish a manifest of blobs as they are, through the vendor's client."""
    provider = oras.provider.Registry(insecure=True)
    target = provider.get_container(f"{host}/{name}")
    manifest = oras.oci.NewManifest()
    for number, (data, media_type, annotations) in enumerate(blobs):
        path = folder / f"blob-{number}"
        path.write_bytes(data)
        layer = {**oras.oci.NewLayer(str(path), media_type=media_type), "annotations": annotations}
        provider.upload_blob(str(path), target, layer)
        manifest["layers"].append(layer)
    manifest["config"], _ = oras.oci.ManifestConfig()
    empty = folder / "config"
    empty.write_bytes(b"{}")
    provider.upload_blob(str(empty), target, manifest["config"])
    assert provider.upload_manifest(manifest, target).status_code == 201


def fetch(uri: str, site: Site, block: int = 100_000, **model: Any) -> FetchedModel:
    config = ModelConfig(name="m", source=uri, **model)
    return Fetch(config, site, patience=Patience(first_wait=0.001), block=block).run().model


def secret(site: Site, **entries: str) -> None:
    site.places.credentials_dir.mkdir(exist_ok=True)
    for name, value in entries.items():
        (site.places.credentials_dir / name).write_text(value)


def test_files_that_oras_pushed(
    registry: str, files: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    answer = client().push(target=f"{registry}/team/model:v1", files=["README.md", "tiny.gguf"])
    fetched = fetch(f"oci://{registry}/team/model:v1", site)
    assert fetched.path.read_bytes() == (files / "tiny.gguf").read_bytes()
    assert fetched.facts.pin is not None
    assert fetched.facts.pin.revision == answer.headers["Docker-Content-Digest"]
    with pytest.raises(SourceNotFound):
        fetch(f"oci://{registry}/team/model:v2", site)


def test_a_folder_that_oras_pushed(
    registry: str, files: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    client().push(target=f"{registry}/team/model:v1", files=["model"])
    assert inspect(f"oci://{registry}/team/model:v1", site).file_name == "tiny.gguf"
    fetched = fetch(f"oci://{registry}/team/model:v1", site)
    assert fetched.path.read_bytes() == (files / "tiny.gguf").read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_of_an_image(registry: str, files: Path, site: Site, tmp_path: Path, packed: bool) -> None:
    data = (files / "tiny.gguf").read_bytes()
    archive = tar(("models/before.bin", bytes(2_000_000)), ("models/tiny.gguf", data), ("models/z", b"z"))
    layer = gzip.compress(archive) if packed else archive
    push(registry, "team/image:v1", (layer, TAR + ("+gzip" if packed else ""), {}), folder=tmp_path)
    with open_model(f"oci://{registry}/team/image:v1", site) as model:
        assert (model.files[0].artifact.payload.size == len(data)) is not packed
    assert fetch(f"oci://{registry}/team/image:v1#models/tiny.gguf", site).path.read_bytes() == data


def test_a_password(tmp_path: Path, files: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    with docker_registry(tmp_path, auth=passwords(tmp_path)) as host:
        pusher = client(auth_backend="basic")
        pusher.auth.set_basic_auth(USER, PASSWORD)
        pusher.push(target=f"{host}/team/model:v1", files=["tiny.gguf"])
        with pytest.raises(SourceUnauthorized):
            fetch(f"oci://{host}/team/model:v1", site)
        secret(site, username=USER, password=PASSWORD)
        assert fetch(f"oci://{host}/team/model:v1", site).path.stat().st_size


def test_tokens_that_expire_in_the_middle(tmp_path: Path, files: Path, site: Site) -> None:
    tokens = TokenServer(tmp_path)
    try:
        with docker_registry(tmp_path, auth=tokens.auth) as host:
            secret(site, username=USER, password=PASSWORD)
            published = _push_with_token(host, files / "tiny.gguf", tokens)
            tokens.given.clear()
            tokens.lifetime = 10
            with open_model(f"oci://{host}/team/model:v1", site) as model:
                payload = model.files[0].artifact.payload
                assert model.revision == published
                with payload.read(0, 10) as chunks:
                    first = b"".join(chunks)
                tokens.lifetime = 300
                _wait_until_refused(payload.where, tokens.last)
                with payload.read(10) as chunks:
                    rest = b"".join(chunks)
            assert first + rest == (files / "tiny.gguf").read_bytes()
            assert set(tokens.given) == {"repository:team/model:pull"}
            assert len(tokens.given) == 2
            secret(site, password="wrong")
            with pytest.raises(SourceUnauthorized):
                fetch(f"oci://{host}/team/model:v1", site)
    finally:
        tokens.close()


def _wait_until_refused(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    while httpx2.get(url, headers=headers, trust_env=False).status_code != httpx2.codes.UNAUTHORIZED:
        time.sleep(0.5)


def _push_with_token(host: str, path: Path, tokens: TokenServer) -> str:
    provider = oras.provider.Registry(insecure=True)
    provider.auth.set_token_auth(tokens.token("repository:team/model:pull,push"))
    target = provider.get_container(f"{host}/team/model:v1")
    manifest = oras.oci.NewManifest()
    layer = {**oras.oci.NewLayer(str(path)), "annotations": {"org.opencontainers.image.title": path.name}}
    provider.upload_blob(str(path), target, layer)
    manifest["layers"].append(layer)
    manifest["config"], _ = oras.oci.ManifestConfig()
    empty = tokens.folder / "config"
    empty.write_bytes(b"{}")
    provider.upload_blob(str(empty), target, manifest["config"])
    answer = provider.upload_manifest(manifest, target)
    assert answer.status_code == 201
    return str(answer.headers["Docker-Content-Digest"])


def test_a_mirror_with_a_ca_of_its_own(
    tmp_path: Path, files: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("registry", "registry", hosts=["127.0.0.1"])
    with docker_registry(tmp_path, tls=pair) as host:
        monkeypatch.chdir(files)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        oras.client.OrasClient().push(target=f"{host}/library/model:latest", files=["tiny.gguf"])
        shutil.copy(authority.certificate, site.places.ca_bundle)
        mirror = Mirror(source="oci://docker.io/", mirror=f"https://{host}/")
        mirrored = Site(
            site.places,
            {**site.environment, FETCH_ENV: FetchConfig(mirrors=(mirror,), hosts=("127.0.0.1",)).to_json()},
        )
        assert fetch("oci://docker.io/model", mirrored).path.stat().st_size


def test_a_model_of_ollama_stays_pinned_and_is_served_with_its_modelfiles_words(
    registry: str, files: Path, site: Site, tmp_path: Path
) -> None:
    data = (files / "tiny.gguf").read_bytes()
    kind = "application/vnd.ollama.image."
    layers = (
        (data, kind + "model", {}),
        (b"Be kind.", kind + "system", {}),
        (b'{"temperature": 0.5, "num_ctx": 4096}', kind + "params", {}),
    )
    push(registry, "library/tiny:1b", *layers, folder=tmp_path)
    uri = f"ollama://{registry}/tiny:1b"
    facts = inspect(uri, site)
    push(registry, "library/tiny:1b", (b"GGUF, another", kind + "model", {}), folder=tmp_path)
    model = ModelConfig(name="tiny", source=uri, pin=facts.pin)
    fetched = Fetch(model, site, patience=Patience(first_wait=0.001)).run().model
    assert fetched.path.read_bytes() == data
    assert fetched.prompt == PromptConfig(system="Be kind.", parameters=PromptParameters(temperature=0.5))
    spec = PromptConfig(parameters=PromptParameters(top_k=7))
    with serving(model, site.places.model_dir, tmp_path, prompt=spec) as process:
        headers = {"Authorization": f"Bearer {KEY}"}
        shown = httpx2.post(
            f"{process.base}/api/show", json={"model": "tiny"}, headers=headers, trust_env=False
        ).json()
    assert shown["system"] == "Be kind."
    lines = shown["parameters"].splitlines()
    assert {tuple(line.split()) for line in lines} >= {("temperature", "0.5"), ("top_k", "7")}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="Ollama is partly in C, and is built here")
def test_a_model_that_ollama_made_and_pushed(registry: str, files: Path, site: Site, tmp_path: Path) -> None:
    shutil.copy(files / "tiny.gguf", tmp_path)
    (tmp_path / "Modelfile").write_text(MODELFILE)
    with ollama(tmp_path) as client_of_ollama:
        name = f"http://{registry}/library/tiny:1b"
        client_of_ollama("create", name, "-f", "Modelfile")
        client_of_ollama("push", "--insecure", name)
    fetched = fetch(f"ollama://{registry}/tiny:1b", site)
    assert fetched.path.read_bytes() == (files / "tiny.gguf").read_bytes()
    assert fetched.prompt == PromptConfig(
        system="Be kind.",
        stop=("<|im_end|>", "END"),
        parameters=PromptParameters(temperature=0.25, max_tokens=12),
        template=translate("{{ .System }} {{ .Prompt }}"),
        messages=(PromptMessage(role="user", content="Hi"),),
    )
