"""Pages in browsers: those that the configuration names, and no others."""

from pathlib import Path

import httpx
import pytest

from tests.unit.runtime_api.scripted import MODEL, Running, running

PAGE = "https://chat.example.com"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, x-stainless-lang",
}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (tmp_path / "a").write_text("sk-a")
    return tmp_path


def browser(api: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=api.base, trust_env=False)


async def test_a_page_asks_and_is_answered(keys: Path) -> None:
    async with (
        running(keys=keys, allowed_origins=(PAGE, "http://localhost:3000")) as api,
        browser(api) as http,
    ):
        question = await http.options("/v1/chat/completions", headers=PREFLIGHT)
        assert question.status_code == 204
        assert question.content == b""
        assert question.headers["access-control-allow-origin"] == PAGE
        assert "POST" in question.headers["access-control-allow-methods"]
        allowed = question.headers["access-control-allow-headers"]
        assert {"authorization", "x-stainless-lang"} <= {name.strip() for name in allowed.split(",")}
        headers = {"origin": PAGE, "authorization": "Bearer sk-a"}
        for stream in (False, True):
            answer = await http.post("/v1/chat/completions", headers=headers, json={**ASK, "stream": stream})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["vary"] == "origin"
        # A page has to be able to read why it was refused.
        refused = await http.post("/api/chat", headers={"origin": PAGE}, json=ASK)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == PAGE
        assert "key" in refused.json()["error"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.com", "https://chat.example.com.evil.com", "http://chat.example.com", "null"],
)
async def test_another_page_is_told_nothing(keys: Path, origin: str) -> None:
    async with running(keys=keys, allowed_origins=(PAGE,)) as api, browser(api) as http:
        question = await http.options("/v1/chat/completions", headers={**PREFLIGHT, "origin": origin})
        assert question.status_code == 401
        answer = await http.get("/", headers={"origin": origin})
        assert answer.status_code == 200
        for got in (question, answer):
            assert "access-control-allow-origin" not in got.headers
            # What was answered to this page isn't what others are answered.
            assert got.headers["vary"] == "origin"


async def test_every_page_where_that_is_written() -> None:
    async with running(allowed_origins=("*",)) as api, browser(api) as http:
        answer = await http.get("/v1/models", headers={"origin": "null"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert (await http.options("/api/chat", headers=PREFLIGHT)).status_code == 204
        nowhere = await http.options("/v1/nope", headers=PREFLIGHT)
        assert nowhere.status_code == 404
        assert nowhere.headers["access-control-allow-origin"] == "*"


async def test_without_configuration_no_page_is_answered(keys: Path) -> None:
    async with running(keys=keys) as api, browser(api) as http:
        question = await http.options("/v1/chat/completions", headers=PREFLIGHT)
        assert question.status_code == 401
        answer = await http.get("/v1/models", headers={"origin": PAGE, "authorization": "Bearer sk-a"})
        assert answer.status_code == 200
        for got in (question, answer):
            assert not [name for name in got.headers if name.startswith("access-control")]


async def test_options_tell_the_methods_to_who_has_a_key(keys: Path) -> None:
    async with running(keys=keys) as api, browser(api) as http:
        assert (await http.options("/v1/models")).status_code == 401
        headers = {"authorization": "Bearer sk-a"}
        listed = await http.options("/v1/models", headers=headers)
        assert (listed.status_code, listed.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert (await http.options("/v1/chat/completions", headers=headers)).headers[
            "allow"
        ] == "OPTIONS, POST"
        assert (await http.options("/v1/nope", headers=headers)).status_code == 404
        assert (await http.head("/v1/models", headers=headers)).status_code == 200
