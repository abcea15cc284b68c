"""Images that clients name by URL come from the origins that are allowed, and from nowhere else."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from slm_contract.config import RuntimeConfig
from slm_runtime.api.conversation import remote_pictures
from slm_runtime.api.conversation.pictures import Sent
from slm_runtime.api.conversation.remote_pictures import RemotePictures
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Picture
from tests.support.web import WebServer
from tests.unit.runtime_api.scripted import LOADED, MODEL, ScriptedEngine, running


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def elsewhere() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


async def brought(url: str, *origins: str) -> bytes:
    image = Sent(url, "messages[0]")
    await RemotePictures(origins).bring([image])
    return image.read().data


async def refusal(url: str, *origins: str) -> str:
    with pytest.raises(BadRequest) as refused:
        await brought(url, *origins)
    assert (refused.value.param, refused.value.code) == ("messages[0]", "invalid_image_url")
    return refused.value.message


def bodies(url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": list(parts)}]

    return {
        "chat": (
            "/v1/chat/completions",
            {"messages": user({"type": "image_url", "image_url": {"url": url}})},
        ),
        "responses": ("/v1/responses", {"input": user({"type": "input_image", "image_url": url})}),
        "messages": (
            "/v1/messages",
            {"max_tokens": 5, "messages": user({"type": "image", "source": {"type": "url", "url": url}})},
        ),
    }


@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
async def test_each_protocol_s_urls_are_fetched(web: WebServer, protocol: str) -> None:
    path, body = bodies(web.put("a.png", b"pixels"))[protocol]
    engine = ScriptedEngine(info=msgspec.structs.replace(LOADED, sees=True))
    async with running(engine, image_origins=(web.url("").rstrip("/"),)) as api:
        async with httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
            answer = await http.post(path, json={"model": MODEL, **body})
        assert answer.status_code == 200, answer.text
        (picture,) = [part for part in api.engine.requests[-1].prompt if isinstance(part, Picture)]
        assert picture.data == b"pixels"


@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
async def test_where_none_is_allowed_nothing_is_asked(web: WebServer, protocol: str) -> None:
    path, body = bodies(web.put("a.png", b"pixels"))[protocol]
    seeing = ScriptedEngine(info=msgspec.structs.replace(LOADED, sees=True))
    async with running(seeing) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 400
    assert "spec.endpoint.imageOrigins" in answer.text
    assert web.asked == []


async def test_redirects_lead_only_to_allowed_origins(web: WebServer, elsewhere: WebServer) -> None:
    there = elsewhere.put("a.png", b"pixels")
    url = web.put("moved.png", status=302, headers={"Location": there})
    here = web.url("").rstrip("/")
    told = await refusal(url, here)
    assert f"127.0.0.1:{elsewhere.port} is none of the origins" in told
    assert elsewhere.asked == []
    assert await brought(url, here, elsewhere.url("").rstrip("/")) == b"pixels"


async def test_a_prefix_of_a_host_is_another_host(web: WebServer) -> None:
    url = web.put("a.png", b"pixels")
    told = await refusal(url.replace("127.0.0.1", "127.0.0.1.example"), web.url("").rstrip("/"))
    assert "127.0.0.1.example" in told


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]"])
async def test_what_clouds_tell_their_machines_is_asked_by_nobody(host: str) -> None:
    assert "cloud" in await refusal(f"http://{host}/a.png", f"http://{host}")


async def test_what_does_not_come_or_is_too_large_is_told(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = web.url("").rstrip("/")
    assert "answers 404" in await refusal(web.url("none.png"), here)
    monkeypatch.setattr(remote_pictures, "BODY_BYTES", 1 << 20)
    assert "larger than 1 MiB" in await refusal(web.put("large.png", b"x" * (1 << 21)), here)
    loop = web.put("loop.png", status=302, headers={"Location": web.url("loop.png")})
    assert "redirects more than 3 times" in await refusal(loop, here)
    monkeypatch.setattr(remote_pictures, "SECONDS", 0.2)
    held = threading.Event()
    assert "did not come within" in await refusal(web.put("slow.png", b"x" * 99, hold=held), here)
    held.set()


@pytest.mark.parametrize("url", ["https://[", "http://", "https://a:99999/"])
async def test_what_is_no_url_is_told(url: str) -> None:
    assert url[:8] in await refusal(url, "https://images.example")


def test_the_configuration_takes_them() -> None:
    text = '{"model": {"name": "m", "source": "s"}, "image_origins": ["https://a.example"]}'
    assert RuntimeConfig.model_validate_json(text).image_origins == ("https://a.example",)
