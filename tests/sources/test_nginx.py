"""Models on a real web server: what it refuses, how slowly it sends, and that it may go away in the middle."""

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig
from slm_contract.places import FETCH_ENV
from slm_contract.report import FetchReport
from slm_contract.source import FetchConfig
from slm_runtime.errors import SourceUnauthorized
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.sources import resolve
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.support import listed
from tests.support.gguf import write_tiny_gguf
from tests.support.listed import Listed
from tests.support.measured import interpreter, measured
from tests.support.nginx import nginx
from tests.support.ports import free_port

FetchOf = Callable[..., Fetch]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, bytes]:
    """A model of 3 files, 24 MB."""
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    return {
        "m.gguf": tiny + os.urandom(16_000_000),
        "a/second.bin": os.urandom(8_000_000),
        "third.json": b"{}",
    }


@pytest.fixture
def root(tmp_path: Path, data: dict[str, bytes]) -> Path:
    folder = tmp_path / "served"
    for path, content in data.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    files = [Listed(path=path, sha256=hashlib.sha256(content).hexdigest()) for path, content in data.items()]
    (folder / "list.json").write_bytes(listed.listing(files))
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(
        host="127.0.0.1",
        ops_port=0,
        model_dir=tmp_path / "models",
        credentials_dir=tmp_path / "credentials",
        ca_bundle=tmp_path / "ca.crt",
        termination_message=tmp_path / "termination",
    )


@pytest.fixture
def fetch_of(places: Places, monkeypatch: pytest.MonkeyPatch) -> FetchOf:
    monkeypatch.setattr(resolve, "SOURCES", listed.known())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def make(source: str, config: FetchConfig | None = None, block: int = 1 << 20) -> Fetch:
        environment = {"PIP_CONFIG_FILE": os.devnull, FETCH_ENV: config.to_json() if config else ""}
        patience = Patience(first_wait=0.05)
        model = ModelConfig(name="m", source=source)
        return Fetch(model, Site(places, environment), patience=patience, block=block)

    return make


def the_list(address: str) -> str:
    return f"listed+{address}list.json"


def assert_fetched(fetch: Fetch, data: dict[str, bytes]) -> None:
    assert not fetch.run().cached
    assert fetch.folder.require()
    for path, content in data.items():
        assert (fetch.folder.path / path).read_bytes() == content
    download = fetch.progress.download()
    assert download.bytes_done == download.bytes_total == sum(map(len, data.values()))


@pytest.mark.parametrize(
    "directives",
    [
        "",
        "max_ranges 0;",
        "keepalive_timeout 0;",
        "etag off; add_header Last-Modified ''; if_modified_since off;",
        "rewrite ^/m.gguf$ /moved/m.gguf redirect; location /moved/ { alias ROOT/; }",
    ],
    ids=["plain", "no ranges", "no reuse", "no version", "moved"],
)
def test_how_a_server_may_be_set_up(
    root: Path, data: dict[str, bytes], fetch_of: FetchOf, directives: str
) -> None:
    with nginx(root, directives.replace("ROOT", str(root))) as address:
        assert_fetched(fetch_of(the_list(address)), data)


def test_a_server_that_bears_one_connection(root: Path, data: dict[str, bytes], fetch_of: FetchOf) -> None:
    """A block is longer than what comes at once, so that all connections would be open together."""
    start = data["m.gguf"][:2_000_000]
    (root / "m.gguf").write_bytes(start)
    with nginx(root, "limit_conn clients 1; limit_rate 250k; limit_conn_status 429;") as address:
        assert_fetched(fetch_of(f"{address}m.gguf", block=1 << 19), {"m.gguf": start})


def test_a_login(
    root: Path, data: dict[str, bytes], fetch_of: FetchOf, places: Places, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("reader:{PLAIN}secret\n")
    with nginx(root, f"auth_basic models; auth_basic_user_file {tmp_path / 'users'};") as address:
        refused = fetch_of(f"{address}m.gguf")
        with pytest.raises(SourceUnauthorized):
            refused.run()
        places.credentials_dir.mkdir()
        (places.credentials_dir / "username").write_text("reader")
        (places.credentials_dir / "password").write_text("secret")
        assert_fetched(fetch_of(f"{address}m.gguf"), {"m.gguf": data["m.gguf"]})


def test_a_server_that_goes_away_and_comes_back(
    root: Path, data: dict[str, bytes], fetch_of: FetchOf
) -> None:
    port = free_port()
    fetch = fetch_of(the_list(f"http://127.0.0.1:{port}/"))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fetch.run()
        except BaseException as error:
            failed.append(error)

    fetching = threading.Thread(target=run)
    with nginx(root, "limit_rate 1m;", port):
        fetching.start()
        while fetch.progress.bytes_done < 4_000_000 and fetching.is_alive():
            fetching.join(0.01)
    before = fetch.progress.bytes_done
    assert 4_000_000 <= before < sum(map(len, data.values()))
    with nginx(root, port=port):
        fetching.join()
    assert failed == []
    for path, content in data.items():
        assert (fetch.folder.path / path).read_bytes() == content


def test_a_limited_fetch_has_all_bytes(root: Path, data: dict[str, bytes], fetch_of: FetchOf) -> None:
    with nginx(root) as address:
        assert_fetched(fetch_of(the_list(address), FetchConfig(bytes_per_second=40_000_000)), data)


def test_memory_does_not_grow_with_the_model(root: Path, tmp_path: Path) -> None:
    """As docs/models.md promises: at most 50 MiB above a Python that does nothing."""
    with (root / "m.gguf").open("ab") as model:
        for _ in range(400):
            model.write(os.urandom(1 << 20))
    (root / "list.json").write_bytes(listed.listing([Listed(path="m.gguf")]))
    with nginx(root) as address:
        command = [sys.executable, "-m", "tests.support.listed", "fetch"]
        run = measured(command, listed.environment(the_list(address), tmp_path))
    report = FetchReport.model_validate_json((tmp_path / "termination").read_bytes())
    assert run.exit_code == 0, report
    assert report.model
    assert report.model.files[0].size_bytes > 400 << 20
    assert run.peak_rss_mib - interpreter().peak_rss_mib <= 50
