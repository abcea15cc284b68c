"""hf:// asked of servers that mean harm, or that are something else."""

import json

import pytest

from slm_runtime.errors import (
    InvalidModel,
    RuntimeFailure,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
)
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from tests.support.hub import Hub
from tests.support.web import File, WebServer
from tests.unit.runtime_models.hub_cases import OLD, read, refusal, sha256, token


@pytest.fixture
def odd(web: WebServer, environment: dict[str, str]) -> WebServer:
    """A server that tests make into a hub by hand: of `org/repo`, with one file."""
    environment["HF_ENDPOINT"] = web.url("")
    web.put("api/models/org/repo/revision/main", json.dumps({"sha": "a" * 40}).encode())
    tree(web, "m.gguf")
    web.put(f"org/repo/resolve/{'a' * 40}/m.gguf", OLD)
    return web


def tree(web: WebServer, *names: str, **how: object) -> None:
    page = [{"type": "file", "path": name, "size": len(OLD)} for name in names]
    web.put(f"api/models/org/repo/tree/{'a' * 40}", json.dumps(page).encode(), **how)


def test_a_server_that_is_well(odd: WebServer, site: Site) -> None:
    assert read("hf://org/repo", site) == {"m.gguf": OLD}


def test_a_list_that_never_ends(odd: WebServer, site: Site) -> None:
    more = {"Link": '<https://[elsewhere.invalid/?cursor=1>; rel="next"'}
    for names, requests in ((["m.gguf"], 60), ([f"{index}" for index in range(20_000)], 10)):
        tree(odd, *names, headers=more)
        odd.asked.clear()
        failure = refusal("hf://org/repo", site)
        assert isinstance(failure, SourceInvalid)
        assert "Name the file" in failure.remedy
        assert len(odd.asked) < requests


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in</html>",
        b"",
        b"null",
        b'{"error": "no"}',
        b"[" * 100_000,
        b'[{"type": "file", "path": 5}]',
        b'[{"type": "file", "path": "m.gguf", "size": 1e999}]',
        b"\xff\xfe",
        b'[{"type": "file", "path": "\\ud800.gguf"}]',
        b" " * (100 << 20),
    ],
    ids=["html", "empty", "null", "error", "deep", "types", "infinite", "bytes", "half", "100 MB"],
)
def test_a_document_that_is_none(odd: WebServer, site: Site, body: bytes) -> None:
    for path in ("revision/main", f"tree/{'a' * 40}"):
        odd.put(f"api/models/org/repo/{path}", body)
        assert isinstance(refusal("hf://org/repo", site), SourceInvalid | SourceNotFound)
    assert odd.sent < 40 << 20


@pytest.mark.parametrize(
    "name",
    ["../../../etc/m.gguf", "/etc/m.gguf", "a/../../m.gguf", ".m.gguf", "a//m.gguf", "a\\m.gguf", "\n.gguf"],
)
def test_a_path_that_leads_elsewhere(odd: WebServer, site: Site, name: str) -> None:
    tree(odd, name)
    assert isinstance(refusal("hf://org/repo", site), SourceInvalid)
    assert all("resolve" not in each.path for each in odd.asked)


def test_a_list_of_parts_without_end(odd: WebServer, site: Site) -> None:
    tree(odd, "m-00001-of-99999.gguf")
    assert isinstance(refusal("hf://org/repo", site), SourceInvalid)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("", SourceInvalid),
        ("https://169.254.169.254/latest/meta-data", SourceInvalid),
        ("http://models.example/m.gguf", RuntimeFailure),
    ],
    ids=["itself", "metadata", "unencrypted"],
)
def test_a_redirect_that_leads_nowhere(
    odd: WebServer, site: Site, location: str, kind: type[RuntimeFailure]
) -> None:
    for path in (f"org/repo/resolve/{'a' * 40}/m.gguf", "org/repo/resolve/main/m.gguf"):
        odd.put(path, status=302, headers={"Location": location or f"/{path}"})
    token(site, "secret")
    for uri in ("hf://org/repo", "hf://org/repo/m.gguf"):
        assert isinstance(refusal(uri, site), kind)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": "../../x", "X-Linked-ETag": '"short"', "X-Linked-Size": "9" * 400},
        {"X-Repo-Commit": "A" * 40, "X-Linked-ETag": "z" * 64, "X-Linked-Size": "-1"},
    ],
)
def test_headers_that_make_no_sense_count_as_none(
    odd: WebServer, site: Site, headers: dict[str, str]
) -> None:
    odd.put("org/repo/resolve/main/m.gguf", OLD, headers=headers)
    with open_model("hf://org/repo/m.gguf", site) as model:
        assert (model.revision, model.files[0].sha256) == (None, None)
        assert model.files[0].artifact.payload.size == len(OLD)


@pytest.mark.parametrize(
    "header", [{"X-Linked-ETag": f'W/"{sha256(OLD)}"'}, {"X-Checksum-Sha256": sha256(OLD)}]
)
def test_checksums_as_mirrors_write_them(odd: WebServer, site: Site, header: dict[str, str]) -> None:
    odd.put("org/repo/resolve/main/m.gguf", OLD, headers=header)
    with open_model("hf://org/repo/m.gguf", site) as model:
        assert model.files[0].sha256 == sha256(OLD)


def test_what_another_server_says_of_a_file_is_not_the_hub_s_word(
    hub: Hub, odd: WebServer, site: Site, environment: dict[str, str]
) -> None:
    other = odd.put("elsewhere", OLD, headers={"X-Repo-Commit": "b" * 40, "X-Linked-ETag": "c" * 64})
    environment["HF_ENDPOINT"] = odd.url("").replace("127.0.0.1", "localhost")
    odd.files["/org/repo/resolve/main/m.gguf"] = File(status=302, headers={"Location": other})
    with open_model("hf://org/repo/m.gguf", site) as model:
        assert (model.revision, model.files[0].sha256) == (None, None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_mirror_that_refuses_without_a_word(odd: WebServer, site: Site, status: int) -> None:
    odd.put("org/repo/resolve/main/m.gguf", status=status)
    assert isinstance(refusal("hf://org/repo/m.gguf", site), SourceUnauthorized)


def test_a_hub_that_is_asked_too_often(odd: WebServer, site: Site) -> None:
    limit = {
        "RateLimit": '"resolvers";r=0;t=55',
        "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300',
    }
    odd.put("org/repo/resolve/main/m.gguf", status=429, headers=limit)
    failure = refusal("hf://org/repo/m.gguf", site)
    assert isinstance(failure, SourceUnreachable)
    assert failure.retry_after == 55
    assert "token" in failure.remedy
    odd.put("org/repo/resolve/main/m.gguf", status=429, headers={"Retry-After": "7"})
    failure = refusal("hf://org/repo/m.gguf", site)
    assert isinstance(failure, SourceUnreachable)
    assert failure.retry_after == 7


def test_an_empty_file_is_no_model(odd: WebServer, site: Site) -> None:
    odd.put("org/repo/resolve/main/m.gguf", b"")
    assert isinstance(refusal("hf://org/repo/m.gguf", site), InvalidModel)
