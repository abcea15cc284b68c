import errno
from pathlib import Path

import httpx
import pytest

from slm_runtime.api.http.auth import KeyRing, is_keyless
from slm_runtime.api.routes import routes
from tests.unit.runtime_api.scripted import MODEL, exchange, running

KEY = "sk-right"
BEARER = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / "primary").write_text(KEY + "\n")
    return tmp_path


async def test_every_route_wants_a_key_but_some(keys: Path) -> None:
    async with (
        running(keys=keys) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as http,
    ):
        keyless = set()
        served = [*routes(api.serving).routes(), ("GET", "/nowhere"), ("OPTIONS", "/v1/models")]
        for method, path in [(method, path.replace("{rest}", MODEL)) for method, path in served]:
            answer = await http.request(method, path)
            if answer.status_code != 401:
                keyless.add((method, path))
                continue
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                message = answer.json()["error"]
                assert "API key" in (message if isinstance(message, str) else message["message"])
            allowed = await http.request(method, path, headers=BEARER)
            assert allowed.status_code != 401
        assert keyless == {("GET", path) for path in ("/", "/health", "/api/version", "/api/health")}


TARGETS = [
    "//v1/models",
    "/v1//models",
    "/v1/models/",
    "/v1/models/../models",
    "/api/version/../../v1/models",
    "/%2e/v1/models",
    "/%76%31/models",
    "/v1%2fmodels",
    "/api/version%00",
    "/api/health/",
    "/api/version;/v1/models",
    "/api/version%3f/../v1/models",
    "http://x/v1/models",
    "/v1/models?/api/version",
    "/.",
    "/%2f",
    "/api%2fversion",
]


async def test_no_spelling_of_a_path_gets_past(keys: Path) -> None:
    async with running(keys=keys) as api:
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            for target in TARGETS:
                answer = await exchange(api.port, f"{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                assert answer.split(b" ", 2)[1] in {b"401", b"400"}, (method, target, answer)


async def test_other_keys_are_refused(keys: Path) -> None:
    others = [
        b"Bearer wrong",
        b"Bearer ",
        b"Bearer",
        KEY.encode(),
        b"Basic " + KEY.encode(),
        b"Bearer x" + KEY.encode(),
        b"Bearer " + KEY.encode()[:-1],
        b"Bearer \xff",
    ]
    async with running(keys=keys) as api:
        for other in [*others, BEARER["authorization"].encode()]:
            head = b"GET /v1/models HTTP/1.1\r\nconnection: close\r\nauthorization: %b\r\n\r\n" % other
            status = (await exchange(api.port, head)).split(b" ", 2)[1]
            assert status == (b"401" if other in others else b"200"), other


def test_keyless_is_decided_on_the_exact_bytes() -> None:
    assert is_keyless("GET", b"/")
    assert is_keyless("HEAD", b"/api/version")
    assert not is_keyless("POST", b"/")
    assert not is_keyless("GET", b"")
    assert not is_keyless("GET", b"/api/Version")


def publish(folder: Path, version: str, keys: dict[str, str]) -> None:
    """As kubelet does it: a new folder, and one rename of the link that all the files go through."""
    data = folder / f"..{version}"
    data.mkdir()
    for name, key in keys.items():
        (data / name).write_text(key)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    link = folder / "..new"
    link.symlink_to(data.name)
    link.replace(folder / "..data")


def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    publish(tmp_path, "1", {"primary": "one"})
    ring = KeyRing(tmp_path, refresh=1, clock=lambda: now[0])
    assert ring.owner(b"one") == "primary"
    publish(tmp_path, "2", {"primary": "two", "secondary": "one"})
    now[0] += 1
    assert (ring.owner(b"one"), ring.owner(b"two")) == ("secondary", "primary")
    publish(tmp_path, "3", {"primary": "two", "secondary": ""})
    now[0] += 1
    assert (ring.owner(b"one"), ring.owner(b"two"), ring.owner(b"")) == (None, "primary", None)
    assert len(ring) == 1


def test_keys_that_cannot_be_read_now_stay_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "1", {"primary": "one"})
    ring = KeyRing(tmp_path, refresh=0)
    assert ring.owner(b"one") == "primary"

    def full(_: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", full)
        assert ring.owner(b"one") == "primary"
    (tmp_path / "primary").unlink()
    assert ring.owner(b"one") is None


def test_a_folder_that_is_not_there_holds_no_key(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "none", refresh=0)
    assert len(ring) == 0
    assert ring.owner(b"") is None
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "late").write_text("k")
    assert ring.owner(b"k") == "late"


async def test_without_keys_the_pod_is_unready_and_says_why(tmp_path: Path) -> None:
    async with running(keys=tmp_path) as api:
        assert "API key" in (api.serving.unready() or "")
        failure = api.serving.report().failure
        assert failure is not None
        assert failure.reason == "KeysMissing"
        (tmp_path / "key").write_text(KEY)
        assert api.serving.unready() is None
