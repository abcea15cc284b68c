"""What the real server makes of what nobody should send: a sentence, within bounds, while others are served.

Each test runs beside a neighbour's stream that must come to its end without a long gap; at the end the server is the same:
no fault of its own, no crash of the engine, nothing left running, no memory kept.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runtime.api.server import KEY, ServeProcess

pytestmark = pytest.mark.runtime

PATIENCE = 30.0
"""Seconds in which anything must have been answered, and that a neighbour may wait for its next token."""
KEPT = 256 * 2**20
"""Bytes that all this may leave in the server's memory: grammars and prefixes are cached."""


@pytest.fixture(scope="module", autouse=True)
def _the_server_is_the_same_afterwards(smol: ServeProcess) -> Iterator[None]:
    restarts, before = smol.report().engine_restarts, resident(smol)
    yield
    until_idle(smol)
    lines = [json.loads(line) for line in smol.log.read_text().splitlines()]
    assert not [line for line in lines if line.get("status", 0) >= 500]
    assert smol.report().engine_restarts == restarts
    assert smol.probe("/readyz") == 200
    assert resident(smol) - before < KEPT


@pytest.fixture
def http(smol: ServeProcess) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=smol.base, headers=headers, trust_env=False, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(autouse=True)
def _neighbour(smol: ServeProcess, request: pytest.FixtureRequest) -> Iterator[None]:
    told: list[Any] = []
    begun = threading.Event()
    tokens = getattr(request, "param", 40)

    def ask() -> None:
        body = chat(stream=True, max_tokens=tokens, ignore_eos=True, stream_options={"include_usage": True})
        try:
            with (
                httpx.Client(base_url=smol.base, trust_env=False, timeout=PATIENCE) as client,
                client.stream(
                    "POST", "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}
                ) as answer,
            ):
                for line in answer.iter_lines():
                    told.append(line)
                    begun.set()
        except httpx.HTTPError as error:
            told.append(repr(error))
        finally:
            begun.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(PATIENCE)
    yield
    thread.join()
    events = [line.removeprefix("data: ") for line in told if line]
    assert events[-1] == "[DONE]", told[-5:]
    assert json.loads(events[-2])["usage"]["completion_tokens"] == tokens


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **more}


def formatted(schema: Any) -> dict[str, Any]:
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    return schema


def exponential(depth: int) -> dict[str, Any]:
    """Written out, it would hold 2 to the power of `depth` schemas."""
    halves = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**halves, f"d{depth}": {"type": "string"}}}


def wide(depth: int) -> dict[str, Any]:
    """An object whose properties are twice the object below: exponential without a choice."""
    pairs = {
        f"d{n}": {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/d{n + 1}"} for name in "ab"},
            "required": ["a", "b"],
        }
        for n in range(depth)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**pairs, f"d{depth}": {"type": "integer"}}}


SCHEMAS: dict[str, Any] = {
    "a circle of references": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "itself": {"$ref": "#"},
    "a tree": {"type": "object", "properties": {"next": {"$ref": "#"}}},
    "an endless tree": {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
    "deep": nested(120),
    "exponential choices": exponential(40),
    "exponential objects": wide(40),
    "elsewhere": {"$ref": "http://127.0.0.1:9/schema.json"},
    "nothing there": {"$ref": "#/$defs/none"},
    "a long enumeration": {"enum": [f"value {n}" for n in range(5000)]},
    "a long string": {"type": "string", "minLength": 10**9},
    "a long array": {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
    "a pattern that backtracks": {"type": "string", "pattern": "^(a+)+$"},
    "a pattern that multiplies": {"type": "string", "pattern": "^((((.{1,99}){1,99}){1,99}){1,99}){1,99}$"},
    "many keys": {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(3000)}},
    "nothing allowed": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "not a schema": {"type": "sausage", "properties": 5, "required": "x", "anyOf": {}},
    "a huge number": {"type": "integer", "minimum": 10**30, "maximum": 10**30 + 1},
    "options of the grammar's own": {"x-guidance": {"whitespace_pattern": "(a|a)*"}, "type": "object"},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_followed_or_refused(http: httpx.Client, name: str) -> None:
    by_ollama = {"model": "smollm2", "prompt": "x", "format": SCHEMAS[name], "stream": False}
    for answer, sentence in (
        (http.post("/v1/chat/completions", json=formatted(SCHEMAS[name])), lambda error: error["message"]),
        (http.post("/api/generate", json={**by_ollama, "options": {"num_predict": 4}}), str),
    ):
        assert answer.status_code in {200, 400}, answer.text
        if answer.status_code == 400:
            assert len(sentence(answer.json()["error"])) > 20


def test_a_schema_that_leads_nowhere_is_no_fault_of_ours(http: httpx.Client) -> None:
    """It compiles; what is too large shows only inside its braces."""
    answer = http.post(
        "/v1/chat/completions", json={**formatted(SCHEMAS["many keys"]), "temperature": 0, "max_tokens": 64}
    )
    assert answer.status_code == 400, answer.text
    assert "grammar" in answer.json()["error"]["message"]


DEEP_IN: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", formatted("DEEP")),
    (
        "/v1/chat/completions",
        chat(
            tools=[{"type": "function", "function": {"name": "f", "parameters": "DEEP"}}], tool_choice="none"
        ),
    ),
    ("/v1/chat/completions", chat(chat_template_kwargs="DEEP")),
    ("/v1/chat/completions", chat(metadata="DEEP")),
    ("/v1/responses", {"model": "smollm2", "input": ["DEEP"], "max_output_tokens": 1}),
    ("/api/chat", chat(stream=False, options={"num_predict": 1}, format="DEEP")),
    ("/api/chat", chat(stream=False, options={"num_predict": 1, "unknown": "DEEP"})),
]


@pytest.mark.parametrize("depth", [490, 500, 5000])
def test_depth_is_no_fault_of_ours(http: httpx.Client, depth: int) -> None:
    """Wherever the recursion of some part ends: it ends in a sentence."""
    deep = '{"x":' * depth + "1" + "}" * depth
    for path, body in DEEP_IN:
        answer = http.post(path, content=json.dumps(body).replace('"DEEP"', deep))
        assert answer.status_code in {200, 400}, (path, body, answer.text)


TOOL = {"type": "function", "function": {"name": "f", "parameters": exponential(40)}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(tools=[TOOL], tool_choice="required")),
        ("/v1/chat/completions", chat(tools=[TOOL] * 128)),
        ("/v1/chat/completions", chat(logit_bias={str(n): 1 for n in range(100_000)})),
        (
            "/v1/chat/completions",
            chat(stop=["x" * 1000] * 16, n=128, logprobs=True, top_logprobs=20, max_tokens=1),
        ),
        ("/v1/chat/completions", chat(messages=[{"role": "user", "content": ""}] * 5000)),
        (
            "/v1/chat/completions",
            chat(messages=[{"role": "user", "content": "\x00\uffff\u202e<|im_end|>" * 20}]),
        ),
        ("/v1/chat/completions", chat(messages=[{"role": "user", "content": [{"type": "text"}] * 1000}])),
        (
            "/v1/chat/completions",
            chat(chat_template_kwargs={"messages": 5, "raise_exception": 1, "bos_token": []}),
        ),
        ("/v1/chat/completions", chat(chat_template_kwargs={"tools": "x" * 1_000_000})),
        ("/v1/completions", {"model": "smollm2", "prompt": [2**31 - 1], "max_tokens": 1}),
        ("/v1/completions", {"model": "smollm2", "prompt": [[1]] * 129, "max_tokens": 1}),
        ("/v1/completions", {"model": "smollm2", "prompt": "a" * 1_000_000, "max_tokens": 1}),
        ("/v1/completions", {"model": "smollm2", "prompt": "", "max_tokens": 1}),
        ("/v1/responses", {"model": "smollm2", "input": [{"type": ["x"]}]}),
        ("/v1/embeddings", {"model": "smollm2", "input": ["x " * 10_000]}),
        ("/api/generate", {"model": "smollm2", "prompt": "x", "template": "{{ if .System }}" * 3000}),
        ("/api/generate", {"model": "smollm2", "prompt": "x", "context": [2**31 - 1]}),
        ("/api/chat", {"model": "m" * 1_000_000, "messages": []}),
    ],
    ids=range(18),
)
def test_what_is_too_much_is_refused_with_a_sentence(http: httpx.Client, path: str, body: Any) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code in {200, 400, 404, 429}, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert len(error if path.startswith("/api/") else error["message"]) > 10


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nho\x00st: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_a_request_of_two_meanings_or_of_none_is_refused(smol: ServeProcess, head: bytes) -> None:
    with connected(smol) as client:
        client.sendall(head)
        assert client.recv(1000).startswith(b"HTTP/1.1 4")


def test_readers_that_dont_read_and_requests_that_dont_end(smol: ServeProcess, http: httpx.Client) -> None:
    """Between them they would have every slot, were slots given to connections."""
    body = json.dumps(chat(stream=True, max_tokens=200, ignore_eos=True)).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(smol)).sendall(request(body))
        for _ in range(100):
            stack.enter_context(connected(smol)).sendall(request(body)[:-20])
            stack.enter_context(connected(smol)).sendall(b"POST /v1/chat/compl")
        assert http.post("/v1/chat/completions", json=chat()).status_code == 200


@pytest.mark.parametrize("_neighbour", [400], indirect=True, ids=["long"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_closed_by_half_frees_its_sequence(smol: ServeProcess, stream: bool) -> None:
    with connected(smol) as client:
        client.sendall(request(json.dumps(chat(stream=stream, max_tokens=1500, ignore_eos=True)).encode()))
        until(lambda: smol.metric("slm_runtime_sequences_running") == 2)
        client.shutdown(socket.SHUT_WR)
        until(lambda: smol.metric("slm_runtime_sequences_running") < 2)


def connected(server: ServeProcess) -> socket.socket:
    host, port = server.base.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def request(body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (KEY.encode(), len(body), body)
    )


def resident(server: ServeProcess) -> int:
    """Bytes that the server's processes hold."""
    pids = [server.process.pid]
    for pid in pids:
        pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096


def until(true: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def until_idle(server: ServeProcess) -> None:
    until(lambda: server.metric("slm_runtime_sequences_running") == 0)
