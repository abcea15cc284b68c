"""Streams of every protocol while they wait, and calls while they are written."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from slm_runtime.api import delivery
from slm_runtime.api.conversation.parsing import OutputParser
from slm_runtime.api.conversation.tool_formats import FORCED
from slm_runtime.engine.client import EngineBusy
from tests.unit.runtime_api.scripted import MODEL, Script, ScriptedEngine, exchange, post, running
from tests.unit.runtime_api.written import stream

HI = [{"role": "user", "content": "Hi"}]
STREAMS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"messages": HI, "stream": True}, ": "),
    ("/v1/completions", {"prompt": "Hi", "stream": True}, ": "),
    ("/v1/completions", {"prompt": ["Hi", "Ho"], "stream": True}, ": "),
    ("/v1/responses", {"input": "Hi", "stream": True}, ": "),
    ("/v1/messages", {"messages": HI, "stream": True, "max_tokens": 50}, "event: ping"),
    ("/api/chat", {"messages": HI}, '"content":""'),
    ("/api/generate", {"prompt": "Hi"}, '"response":""'),
]


@pytest.mark.parametrize(("path", "body", "sign"), STREAMS)
async def test_a_stream_that_waits_shows_that_it_lives(
    path: str, body: dict[str, Any], sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SILENCE_SECONDS", 0.02)
    gate = asyncio.Event()
    engine = ScriptedEngine(Script(first_gate=gate))
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        async with http.stream("POST", path, json={"model": MODEL, **body}) as answer:
            # The head is here, though nothing was made yet.
            assert answer.status_code == 200
            signs = 0
            text = ""
            async for chunk in answer.aiter_text():
                text += chunk
                signs += sign in chunk
                if signs == 2:
                    gate.set()
        assert signs >= 2
        assert "world" in text


@pytest.mark.parametrize(("path", "body", "sign"), STREAMS)
async def test_a_stream_that_is_refused_has_its_status(path: str, body: dict[str, Any], sign: str) -> None:
    engine = ScriptedEngine(Script(refuse=EngineBusy("full", retry_after=1, waiting=3)))
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 429
    assert "full" in answer.text


@pytest.mark.parametrize(("path", "body", "sign"), STREAMS)
async def test_what_breaks_off_before_its_first_word_is_told_in_the_stream(
    path: str, body: dict[str, Any], sign: str
) -> None:
    engine = ScriptedEngine(Script(pieces=[], reason="error", message="died"))
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 200
    assert "died" in answer.text.splitlines()[-1] or "died" in answer.text.splitlines()[-2]


@pytest.mark.parametrize(("path", "body", "sign"), STREAMS)
async def test_http_1_0_knows_no_chunks(path: str, body: dict[str, Any], sign: str) -> None:
    async with running() as api:
        plain = post(path, {"model": MODEL, **body}).replace(b"HTTP/1.1", b"HTTP/1.0")
        head, _, text = (await exchange(api.port, plain)).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        lines = [line for line in text.split(b"\n") if line.strip()]
        assert all(line.startswith((b"data: ", b"event: ", b"{")) for line in lines)
        assert b"world" in text
        whole = post(path, {"model": MODEL, **body, "stream": False}).replace(b"HTTP/1.1", b"HTTP/1.0")
        head, _, text = (await exchange(api.port, whole)).partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(text) in head
        assert json.loads(text)


TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
WRITTEN = '{"name": "weather", "arguments": {"city": "Pa\\"}\\\\ris", "of": [{}]}}'


async def forced(path: str, body: dict[str, Any], text: str, reason: Any = "stop") -> list[dict[str, Any]]:
    engine = ScriptedEngine(Script(pieces=list(text), reason=reason))
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post(
            path, json={"model": MODEL, "tool_choice": "required", "stream": True, **body}
        )
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


async def test_a_demanded_call_comes_as_it_is_written() -> None:
    body = {"messages": HI, "tools": [{"type": "function", "function": TOOL}]}
    chunks = await forced("/v1/chat/completions", body, WRITTEN)
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    first, *more = calls
    assert first == {
        "index": 0,
        "id": first["id"],
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert len(more) > 10
    assert all(
        call == {"index": 0, "function": {"arguments": call["function"]["arguments"]}} for call in more
    )
    arguments = json.loads("".join(call["function"]["arguments"] for call in more))
    assert arguments == {"city": 'Pa"}\\ris', "of": [{}]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_demanded_call_that_is_cut_off_ends_where_it_is() -> None:
    body = {"messages": HI, "tools": [{"type": "function", "function": TOOL}]}
    chunks = await forced("/v1/chat/completions", body, WRITTEN[:45], "length")
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "weather"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert not any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)


async def test_a_demanded_call_grows_in_a_response() -> None:
    body = {"input": "Hi", "tools": [{"type": "function", **TOOL}]}
    events = await forced("/v1/responses", body, WRITTEN)
    kinds = [event["type"].removeprefix("response.") for event in events]
    growing = kinds.count("function_call_arguments.delta")
    assert growing > 10
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        *["function_call_arguments.delta"] * growing,
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    (item,) = events[-1]["response"]["output"]
    assert json.loads(item["arguments"]) == {"city": 'Pa"}\\ris', "of": [{}]}
    assert (item["status"], item["name"]) == ("completed", "weather")
    assert events[2]["item"] == {**item, "arguments": "", "status": "in_progress"}
    cut = await forced("/v1/responses", body, WRITTEN[:45], "length")
    (item,) = cut[-1]["response"]["output"]
    assert (cut[-1]["type"], item["status"], item["name"]) == ("response.incomplete", "incomplete", "weather")


async def test_the_clients_own_reader_puts_a_growing_call_together() -> None:
    engine = ScriptedEngine(Script(pieces=list(WRITTEN)))
    tool: Any = {"type": "function", "function": TOOL}
    async with (
        running(engine) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(
            model=MODEL,
            messages=HI,  # type: ignore[arg-type]
            tools=[tool],
            tool_choice="required",
        ) as stream,
    ):
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": 'Pa"}\\ris', "of": [{}]}


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        (WRITTEN, "weather", '{"city": "Pa\\"}\\\\ris", "of": [{}]}'),
        (' {\n"name" : "a\\"b" ,\n "arguments" : {}\n}\n', 'a"b', "{}"),
        ('{"name":"a","arguments":{"x":"\\u00e9\\n"}}', "a", '{"x":"\\u00e9\\n"}'),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_a_call_grows_the_same_however_it_is_cut(text: str, name: str, arguments: str, step: int) -> None:
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    assert stream(pieces, OutputParser((FORCED,))).calls == [(name, arguments)]


@pytest.mark.parametrize(
    "text", ['{"name": "a", "arguments": "x"}', '{"arguments": {}, "name": "a"}', "{}", "[1]"]
)
def test_what_does_not_begin_as_a_call_is_left_until_it_is_whole(text: str) -> None:
    assert stream(list(text), OutputParser((FORCED,))).grown == 0
