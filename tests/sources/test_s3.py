"""Models in buckets of a real S3 server, by TLS under a CA of the site's own."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from slm_contract.config import ModelConfig, Quantization
from slm_contract.places import FETCH_ENV
from slm_contract.source import SourcePin
from slm_runtime.errors import (
    InvalidModel,
    RuntimeFailure,
    SourceChanged,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUntrusted,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.fetching.patience import Patience
from slm_runtime.fetching.progress import Progress
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.resolve import open_as_pinned, open_model
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.cluster.certs import Authority
from tests.sources.s3 import ROOT, SECRET, S3Server
from tests.support.gguf import write_tiny_gguf

BLOCK = 20_000
"""Bytes of a request: so few that a tiny model takes many more than are under way at once."""


@pytest.fixture(autouse=True)
def no_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on loopback is asked directly."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    tls = authority.issue("server", "server", hosts=["127.0.0.1"])
    server = S3Server(tmp_path_factory.mktemp("s3"), tls)
    server.start()
    try:
        server.bucket("plain")
        server.bucket("kept", versioned=True)
        server.user("anna", "anna-secret")
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Two models of one size: an overwritten one is no longer, and no shorter."""
    folder = tmp_path_factory.mktemp("models")
    one, two = (write_tiny_gguf(folder / f"{seed}.gguf", seed=seed).read_bytes() for seed in (1, 2))
    assert len(one) == len(two)
    return one, two


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A folder of this test's own, for buckets are shared."""
    return str(request.node.name).partition("[")[0]


@pytest.fixture
def environment(server: S3Server) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": server.url, "PIP_CONFIG_FILE": "/dev/null"}


@pytest.fixture
def site(tmp_path: Path, authority: Authority, environment: dict[str, str]) -> Site:
    places = Places(
        model_dir=tmp_path / "models",
        credentials_dir=tmp_path / "credentials",
        ca_bundle=authority.certificate,
        termination_message=tmp_path / "termination",
    )
    site = Site(places, environment)
    login(site, ROOT, SECRET)
    return site


def login(site: Site, key: str, secret: str) -> None:
    site.places.credentials_dir.mkdir(exist_ok=True)
    (site.places.credentials_dir / "AWS_ACCESS_KEY_ID").write_text(key)
    (site.places.credentials_dir / "AWS_SECRET_ACCESS_KEY").write_text(secret)


def fetch(source: str, site: Site, pin: SourcePin | None = None, progress: Progress | None = None) -> bytes:
    model = ModelConfig(name="m", source=source, pin=pin)
    patience = Patience(first_wait=0.01)
    fetched = Fetch(model, site, block=BLOCK, progress=progress, patience=patience).run().model
    data = fetched.path.read_bytes()
    assert fetched.facts.sha256 == hashlib.sha256(data).hexdigest()
    return data


def paths(uri: str, site: Site) -> list[str]:
    with open_model(uri, site) as model:
        return [each.path for each in model.files]


def refusal(uri: str, site: Site) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        paths(uri, site)
    assert caught.value.remedy
    return caught.value


def pin_of(source: str, site: Site) -> SourcePin:
    pin = inspect(source, site).pin
    assert pin is not None
    return pin


class Once(Progress):
    """Does something when so much has come, while the other connections wait."""

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        super().__init__()
        self._at = at
        self._do: Callable[[], None] | None = do
        self._turn = threading.Lock()

    @override
    def add(self, length: int) -> None:
        with self._turn:
            super().add(length)
            do = self._do
            if do is not None and self.bytes_done >= self._at:
                self._do = None
                do()


def test_one_object(server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]) -> None:
    server.put("plain", f"{key}/a b%20+é.gguf", models[0])
    assert fetch(f"s3://plain/{key}/a b%20+é.gguf", site) == models[0]


def test_a_folder_and_a_pattern(server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]) -> None:
    server.put("plain", f"{key}/README.md", b"read me")
    server.put("plain", f"{key}/m-Q4_K_M.gguf", models[0])
    assert fetch(f"s3://plain/{key}/", site) == models[0]
    assert paths(f"s3://plain/{key}", site) == ["m-Q4_K_M.gguf"]
    server.put("plain", f"{key}/m-Q8_0.gguf", models[1])
    failure = refusal(f"s3://plain/{key}", site)
    assert isinstance(failure, SourceInvalid)
    assert "m-Q4_K_M.gguf" in failure.message
    assert fetch(f"s3://plain/{key}/*Q8_0*", site) == models[1]


def test_a_format_of_a_folder_stays_the_chosen_one(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    server.put("plain", f"{key}/m-F16.gguf", models[0])
    server.put("plain", f"{key}/m-Q4_K_M.gguf", models[1])
    asked = Asked(formats=(Quantization.Q8_0,), strict=True)
    with open_model(f"s3://plain/{key}", site, asked) as model:
        pin = model.pin
    assert pin.path == f"{key}/m-F16.gguf"
    server.put("plain", f"{key}/m-Q8_0.gguf", models[1])
    decided = ModelConfig(name="m", source=f"s3://plain/{key}", quantization=Quantization.Q8_0, pin=pin)
    with open_as_pinned(decided, site) as model:
        assert ([each.path for each in model.files], model.pin) == (["m-F16.gguf"], pin)


def test_a_model_in_parts(server: S3Server, site: Site, key: str) -> None:
    parts = [f"m-0000{index}-of-00003.gguf" for index in (1, 2, 3)]
    for part in parts:
        server.put("plain", f"{key}/{part}", part.encode())
    for source in (f"{key}/{parts[0]}", f"{key}/{parts[1]}", key, f"{key}/m-*.gguf"):
        with open_model(f"s3://plain/{source}", site) as model:
            assert [each.path for each in model.files] == parts
            for each in model.files:
                with each.artifact.payload.read() as chunks:
                    assert b"".join(chunks) == each.path.encode()
    server.delete("plain", f"{key}/{parts[2]}")
    for source in (f"{key}/{parts[0]}", key):
        failure = refusal(f"s3://plain/{source}", site)
        assert isinstance(failure, SourceNotFound)
        assert parts[2] in failure.message


def test_what_is_not_there_says_what_is(server: S3Server, site: Site, key: str) -> None:
    server.put("plain", f"{key}/phi-4-Q4_K_M.gguf", b"GGUF")
    server.put("plain", f"{key}/other/x", b"x")
    failure = refusal(f"s3://plain/{key}/phi4-q4_k_m.gguf", site)
    assert isinstance(failure, SourceNotFound)
    assert "phi-4-Q4_K_M.gguf" in failure.message
    assert isinstance(refusal(f"s3://plain/{key}/other", site), SourceNotFound)
    assert isinstance(refusal(f"s3://plain/{key}/none/*.gguf", site), SourceNotFound)
    failure = refusal("s3://no-such-bucket/m.gguf", site)
    assert isinstance(failure, SourceNotFound)
    assert "no such bucket" in failure.message


def test_an_empty_object_is_no_model(server: S3Server, site: Site, key: str) -> None:
    server.put("plain", f"{key}/m.gguf", b"")
    assert isinstance(refusal(f"s3://plain/{key}/m.gguf", site), InvalidModel)
    assert isinstance(refusal(f"s3://plain/{key}", site), InvalidModel)


def test_a_folder_that_nobody_meant_is_not_read_to_its_end(
    server: S3Server, site: Site, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm_runtime.models.sources.objects.MAX_LISTED", 2)
    for name in "abc":
        server.put("plain", f"{key}/{name}", b"x")
    assert isinstance(refusal(f"s3://plain/{key}", site), SourceInvalid)


@pytest.mark.parametrize("who", [("anna", "anna-secret"), (ROOT, "wrong"), ("nobody", "secret"), None])
def test_without_rights(server: S3Server, site: Site, key: str, who: tuple[str, str] | None) -> None:
    server.put("plain", f"{key}/m.gguf", b"GGUF")
    if who is None:
        for entry in site.places.credentials_dir.iterdir():
            entry.unlink()
    else:
        login(site, *who)
    for source in (f"{key}/m.gguf", key, f"{key}/*"):
        failure = refusal(f"s3://plain/{source}", site)
        assert isinstance(failure, SourceUnauthorized)
        assert "secretRef" in failure.remedy


def test_what_changes_between_two_ranges_is_noticed(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    for bucket in ("plain", "kept"):
        server.put(bucket, f"{key}/m.gguf", models[0])
        with open_model(f"s3://{bucket}/{key}/m.gguf", site) as model:
            payload = model.files[0].artifact.payload
            with payload.read(0, 10) as chunks:
                assert b"".join(chunks) == models[0][:10]
            server.put(bucket, f"{key}/m.gguf", models[1])
            with pytest.raises(SourceChanged), payload.read(10, 20) as chunks:
                b"".join(chunks)


def test_what_changes_while_it_is_fetched_is_fetched_anew(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    server.put("plain", f"{key}/m.gguf", models[0])
    change = Once(2 * BLOCK, lambda: server.put("plain", f"{key}/m.gguf", models[1]))
    assert fetch(f"s3://plain/{key}/m.gguf", site, progress=change) == models[1]


def test_a_version_that_is_overwritten_while_it_is_fetched(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    source = f"s3://kept/{key}/m.gguf"
    server.put("kept", f"{key}/m.gguf", models[0])
    change = Once(2 * BLOCK, lambda: server.put("kept", f"{key}/m.gguf", models[1]))
    assert fetch(source, site, pin_of(source, site), change) == models[0]


def test_what_was_pinned_is_fetched_where_versions_are_kept(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    source = f"s3://kept/{key}/m.gguf"
    server.put("kept", f"{key}/m.gguf", models[0])
    pin = pin_of(source, site)
    assert pin.revision is not None
    server.put("kept", f"{key}/m.gguf", models[1])
    assert fetch(source, site, pin) == models[0]
    assert fetch(source, site, pin_of(source, site)) == models[1]
    deleted = pin_of(source, site)
    server.delete("kept", f"{key}/m.gguf")
    assert isinstance(refusal(source, site), SourceNotFound)
    with open_model(source, site, Asked(deleted.revision)) as model:
        assert model.pin == deleted


def test_what_was_pinned_is_gone_where_none_are_kept(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    source = f"s3://plain/{key}/m.gguf"
    server.put("plain", f"{key}/m.gguf", models[0])
    pin = pin_of(source, site)
    assert pin.revision is None
    server.put("plain", f"{key}/m.gguf", models[1])
    with pytest.raises(SourceDrifted):
        fetch(source, site, pin)
    server.put("plain", f"{key}/m.gguf", models[0])
    assert fetch(source, site, pin) == models[0]


@pytest.mark.parametrize("revision", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "no version at all"])
def test_a_version_that_never_was(server: S3Server, site: Site, key: str, revision: str) -> None:
    server.put("kept", f"{key}/m.gguf", b"GGUF")
    with pytest.raises(SourceDrifted), open_model(f"s3://kept/{key}/m.gguf", site, Asked(revision)):
        pass


def test_a_server_that_dies_and_comes_back(
    server: S3Server, site: Site, key: str, models: tuple[bytes, bytes]
) -> None:
    server.put("plain", f"{key}/m.gguf", models[0])
    death = Once(2 * BLOCK, server.kill)
    restarted = []

    def restart(_seconds: float) -> None:
        restarted.append(death.bytes_done)
        server.start()

    model = ModelConfig(name="m", source=f"s3://plain/{key}/m.gguf")
    fetched = Fetch(model, site, block=BLOCK, progress=death, patience=Patience(sleep=restart)).run()
    assert fetched.model.path.read_bytes() == models[0]
    (kept,) = restarted
    assert kept >= 2 * BLOCK, "what had come is not asked for again"


def test_a_server_that_the_site_does_not_name(
    server: S3Server, site: Site, key: str, environment: dict[str, str]
) -> None:
    server.put("plain", f"{key}/m.gguf", b"GGUF")
    environment[FETCH_ENV] = json.dumps({"hosts": ["models.corp"]})
    failure = refusal(f"s3://plain/{key}/m.gguf", site)
    assert isinstance(failure, SourceUntrusted)
    assert "fetch.hosts" in failure.remedy
    environment[FETCH_ENV] = json.dumps({"hosts": ["127.0.0.1"]})
    assert paths(f"s3://plain/{key}/m.gguf", site) == ["m.gguf"]


def test_a_ca_that_the_site_does_not_trust(server: S3Server, site: Site, key: str, tmp_path: Path) -> None:
    server.put("plain", f"{key}/m.gguf", b"GGUF")
    other = Authority(tmp_path / "other").certificate
    stranger = Site(Places(ca_bundle=other, credentials_dir=site.places.credentials_dir), site.environment)
    assert isinstance(refusal(f"s3://plain/{key}/m.gguf", stranger), SourceUntrusted)
