"""What a client may do wrong below the level of any API."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from slm_runtime.api.http import exchange as bounds
from slm_runtime.api.http.connection import HEAD_BYTES, BoundedProtocol
from slm_runtime.servers import Server
from tests.unit.runtime_api.scripted import (
    MODEL,
    Running,
    Script,
    ScriptedEngine,
    exchange,
    post,
    running,
    until,
)

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "my secret"}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "JSON object"),
        (b'{"model": "\xff"}', "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"model": NaN}', "not valid JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"temperature": 1e999}', "out of range"),
    ],
)
async def test_bodies_that_are_no_json_object(http: httpx.AsyncClient, body: bytes, words: str) -> None:
    answer = await http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/plain"}, "unsupported_content_type"),
        ({"content-type": "application/x-www-form-urlencoded"}, "unsupported_content_type"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, "unsupported_content_encoding"),
    ],
)
async def test_bodies_that_are_not_called_json(
    http: httpx.AsyncClient, headers: dict[str, str], code: str
) -> None:
    answer = await http.post("/v1/chat/completions", content=json.dumps(ASK), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", "Application/JSON; charset=utf-8"),
        ("/api/chat", "application/x-www-form-urlencoded"),
    ],
)
async def test_what_clients_call_json(http: httpx.AsyncClient, path: str, kind: str) -> None:
    body = json.dumps({**ASK, "stream": False})
    assert (await http.post(path, content=body, headers={"content-type": kind})).status_code == 200


def test_idle_connections_outlive_those_of_load_balancers() -> None:
    async def app(*_: object) -> None: ...

    assert Server(app).config.timeout_keep_alive > 600
    assert Server(app, 3900.0).config.timeout_keep_alive == 3900


async def test_a_body_too_large_is_refused(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large = b'{"x": "' + b"x" * bounds.BODY_BYTES
    declared = await http.post("/v1/chat/completions", content=too_large)

    async def stream():
        yield too_large[: len(too_large) // 2]
        yield too_large[len(too_large) // 2 :]

    chunked = await http.post("/v1/chat/completions", content=stream())
    for answer in (declared, chunked):
        assert answer.status_code == 413
        assert str(bounds.BODY_BYTES) in answer.json()["error"]["message"]
        assert answer.headers["connection"] == "close"


async def test_every_answer_says_which_request_it_is_of(http: httpx.AsyncClient) -> None:
    answers = [await http.get(path) for path in ("/v1/models", "/v1/unknown", "/")]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    assert all(each.startswith("req_") for each in ids)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_while_it_drains_asks_elsewhere_next(
    http: httpx.AsyncClient, api: Running, stream: bool
) -> None:
    for draining in (False, True):
        api.serving.draining = draining
        answer = await http.post("/v1/completions", json={"model": MODEL, "prompt": "x", "stream": stream})
        assert answer.status_code == 200
        assert (answer.headers.get("connection") == "close") == draining
        assert ((await http.get("/v1/models")).headers.get("connection") == "close") == draining
        unread = await http.post("/v1/unknown", json={"model": MODEL})
        assert (unread.status_code, unread.headers.get("connection")) == (404, None)


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_are_not_all_held_at_once(
    http: httpx.AsyncClient, api: Running, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(bounds, "TURN_SECONDS", 0.2)
    body = json.dumps({**ASK, "messages": [{"role": "user", "content": "x" * 7_000_000}]}).encode()

    async def stream() -> AsyncIterator[bytes]:
        yield body

    async def large() -> httpx.Response:
        return await http.post("/v1/chat/completions", content=stream() if chunked else body)

    api.engine.script.gate = asyncio.Event()
    first = asyncio.create_task(large())
    await until(lambda: len(api.engine.requests) == 1)
    second = await large()
    assert second.status_code == 429
    assert second.headers["retry-after"] == "1"
    small = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
    await until(lambda: len(api.engine.requests) == 2)
    monkeypatch.setattr(bounds, "TURN_SECONDS", 20)
    third = asyncio.create_task(large())
    api.engine.script.gate.set()
    assert [(await each).status_code for each in (first, small, third)] == [200, 200, 200]


async def test_unknown_routes_and_methods(http: httpx.AsyncClient) -> None:
    nowhere = await http.get("/v1/nope")
    assert nowhere.status_code == 404
    assert nowhere.json()["error"]["code"] == "unknown_url"
    wrong = await http.get("/v1/chat/completions")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    head = await http.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert (await http.get("/")).text == "Ollama is running"
    assert "'/api/nope'" in (await http.get("/api/nope")).json()["error"]


async def test_a_head_too_large_or_no_http_is_refused(api: Running) -> None:
    long = await exchange(api.port, b"GET / HTTP/1.1\r\nx: " + b"x" * (HEAD_BYTES + 1) + b"\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 400")
    assert str(HEAD_BYTES).encode() in long
    many = await exchange(api.port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_BYTES)
    assert many.startswith(b"HTTP/1.1 400")
    assert (await exchange(api.port, b"HELLO\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_head_that_never_ends_is_cut_off(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.1)
    for sent in (b"", b"GET / HTTP/1.1\r\nhost:"):
        assert await exchange(api.port, sent) == b""


async def test_a_body_that_never_ends_is_cut_off(
    api: Running, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds.Exchange.body, "__defaults__", (bounds.BODY_BYTES, 0.1))
    answer = await exchange(api.port, post("/v1/chat/completions", b"{    ")[:-4])
    assert answer.startswith(b"HTTP/1.1 408")
    assert (await http.get("/v1/models")).status_code == 200


async def test_a_reader_that_stops_reading_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "stall_seconds", 0.1)
    engine = ScriptedEngine(Script(pieces=["x" * 100_000] * 1000))
    async with running(engine) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
        writer.write(post("/v1/chat/completions", {**ASK, "stream": True}))
        await reader.readexactly(1)
        await until(lambda: bool(engine.generations) and engine.generations[0].cancelled)
        writer.transport.abort()


async def test_a_reader_that_reads_slowly_gets_all_of_it(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "stall_seconds", 0.2)
    size = 12_000_000
    api.engine.script = Script(pieces=["x" * size])
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=64 * 1024)
    writer.write(post("/v1/chat/completions", ASK))
    received = 0
    while received < size:
        piece = await asyncio.wait_for(reader.read(600_000), 10)
        assert piece, f"cut off after {received} bytes"
        received += len(piece)
        await asyncio.sleep(0.01)
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n\r\n", post("/v1/unknown", b"x" * 100)[:-1]],
    ids=["a blank line", "a body's rest"],
)
async def test_what_begins_no_request_keeps_no_connection(
    api: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(BoundedProtocol, "rest_seconds", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(sent[:-2])
    assert await asyncio.wait_for(reader.read(10), 10) == b"HTTP/1.1 2" if b"GET" in sent else b"HTTP/1.1 4"
    for byte in sent[-2:]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_the_audit_log_tells_who_and_how_much_but_no_text(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="slm.audit"):
        await http.post("/v1/chat/completions", json=ASK)
        await http.post("/v1/chat/completions", json={**ASK, "model": "other"})
    done, refused = (record.fields for record in caplog.records if record.name == "slm.audit")
    assert done["status"] == 200
    assert done["model"] == MODEL
    assert done["route"] == "/v1/chat/completions"
    assert (done["promptTokens"], done["completionTokens"], done["finish"]) == (7, 4, "stop")
    assert refused["status"] == 404
    assert "secret" not in str([done, refused])
    assert "Hello" not in str(done)


async def test_a_fault_of_ours_is_a_sentence_not_a_traceback(
    http: httpx.AsyncClient, api: Running, caplog: pytest.LogCaptureFixture
) -> None:
    api.engine.script.refuse = ZeroDivisionError("inside")
    answer = await http.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 500
    assert "log" in answer.json()["error"]["message"]
    assert "inside" not in answer.text
    assert "ZeroDivisionError" in caplog.text
