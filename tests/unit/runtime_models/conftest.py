import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slm_contract.config import ModelConfig
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.sources import resolve
from slm_runtime.models.sources.artifact import Artifact
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.support import listed
from tests.support.gguf import write_tiny_gguf
from tests.support.hub import Hub, hub_server
from tests.support.web import WebServer, web_server
from tests.unit.runtime_models.published import Published


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> bytes:
    return tiny_file.read_bytes()


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load none of the system's CAs, a hundred times over: no test here reaches the internet."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def environment() -> dict[str, str]:
    """What a pod without any settings sees: no proxy, no pip configuration of this machine."""
    return {"PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(
        host="127.0.0.1",
        ops_port=0,
        model_dir=tmp_path / "models",
        credentials_dir=tmp_path / "credentials",
        ca_bundle=tmp_path / "ca.crt",
        signers=tmp_path / "signers.pem",
        identities=tmp_path / "identities.txt",
        plain_dir=tmp_path / "plain",
        termination_message=tmp_path / "termination",
    )


@pytest.fixture
def site(places: Places, environment: Mapping[str, str]) -> Site:
    return Site(places, environment)


FetchOf = Callable[..., Fetch]


@pytest.fixture
def fetch_of(site: Site) -> FetchOf:
    """A fetch of a URI: impatient, and in ranges so small that the tiny model takes several."""

    def make(source: str, sha256: str | None = None, **asked: Any) -> Fetch:
        model = ModelConfig(name="m", source=source, sha256=sha256, **asked)
        return Fetch(model, site, patience=Patience(first_wait=0.001), block=100_000)

    return make


@pytest.fixture
def published(web: WebServer, site: Site, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A model of three files: the tiny one, a larger one in a folder, a small one."""
    monkeypatch.setattr(resolve, "SOURCES", listed.known())
    noise = bytes(range(256)) * 2000
    return Published(web, site, {"m.gguf": tiny, "sub/second.bin": noise, "third.json": b"{}"})


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 3 MiB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small volume")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def open_artifact(uri: str, site: Site) -> Iterator[Artifact]:
    """The one file of a model that has one."""
    with open_model(uri, site) as model:
        (file,) = model.files
        yield file.artifact


@pytest.fixture
def hub(environment: dict[str, str]) -> Iterator[Hub]:
    with hub_server() as server:
        environment["HF_ENDPOINT"] = server.endpoint
        yield server
