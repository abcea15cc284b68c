"""/v1/messages, judged by Anthropic's own client."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import msgspec
import pytest

from slm_runtime.api.anthropic.conversation import to_chat
from slm_runtime.api.anthropic.requests import MessageParam
from slm_runtime.engine.client import EngineBusy, EngineUnavailable, RequestRefused
from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, Script, ScriptedEngine, running

HI: list[Any] = [{"role": "user", "content": "Hi"}]
TOOL: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
FORCED = ['{"name": "wea', 'ther", "argu', 'ments": {"ci', 'ty": "Pa', 'ris"}', "}"]
THINKER = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}{# <think> </think> #}"


@asynccontextmanager
async def asking(
    pieces: list[str] | None = None, template: str | None = None, **script: Any
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Running]]:
    info = LOADED
    if template is not None:
        info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    engine = ScriptedEngine(Script(**({} if pieces is None else {"pieces": pieces}), **script), info)
    async with (
        running(engine) as api,
        anthropic.AsyncAnthropic(base_url=api.base, api_key="none", max_retries=0) as client,
    ):
        yield client, api


def prompt(api: Running) -> str:
    return str(api.engine.requests[-1].prompt[0])


async def test_answers() -> None:
    async with asking() as (client, api):
        message = await client.messages.create(model=MODEL, max_tokens=50, messages=HI, system="Be brief.")
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "text", "text": "Hello, world!"}
    ]
    assert (message.role, message.type, message.model) == ("assistant", "message", MODEL)
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (4, 3)
    assert message.usage.output_tokens == 4
    assert "system\nBe brief." in prompt(api)
    assert api.engine.requests[0].max_tokens == 50


async def test_streams() -> None:
    async with (
        asking() as (client, _),
        client.messages.stream(model=MODEL, max_tokens=50, messages=HI) as stream,
    ):
        events = [event.type async for event in stream if event.type != "text"]
        final = await stream.get_final_message()
    assert events == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 4,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert final.content[0].text == "Hello, world!"  # type: ignore[union-attr]
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens, final.usage.output_tokens) == (
        4,
        3,
        4,
    )
    assert final.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_are_blocks(stream: bool) -> None:
    pieces = list("I look. " + CALL + CALL)
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 500, "messages": HI, "tools": [TOOL]}
    async with asking(pieces) as (client, api):
        if stream:
            async with client.messages.stream(**asked) as events:
                message: Any = await events.get_final_message()
        else:
            message = await client.messages.create(**asked)
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert message.content[0].text == "I look. "
    assert message.content[1].input == {"city": "Paris"}
    assert message.content[1].name == "weather"
    assert message.content[1].id != message.content[2].id
    assert message.stop_reason == "tool_use"
    assert '"description":"The weather in a city."' in prompt(api)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
async def test_a_demanded_call_comes_as_it_is_written(choice: Any) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 500, "messages": HI, "tools": [TOOL]}
    async with asking(FORCED) as (client, api):
        events = [
            event async for event in await client.messages.create(**asked, tool_choice=choice, stream=True)
        ]
        whole = await client.messages.create(**asked, tool_choice=choice)
    (begun,) = [event for event in events if event.type == "content_block_start"]
    assert (begun.content_block.name, begun.content_block.input) == ("weather", {})
    deltas = [event.delta.partial_json for event in events if event.type == "content_block_delta"]
    assert len(deltas) > 2
    assert json.loads("".join(deltas)) == {"city": "Paris"}
    assert events[-2].delta.stop_reason == "tool_use"
    (block,) = whole.content
    assert (block.type, block.input) == ("tool_use", {"city": "Paris"})  # type: ignore[union-attr]
    assert api.engine.requests[0].constraint is not None


async def test_one_call_where_parallel_ones_are_not_wanted() -> None:
    choice: Any = {"type": "auto", "disable_parallel_tool_use": True}
    async with asking([CALL, CALL]) as (client, api):
        message = await client.messages.create(
            model=MODEL, max_tokens=500, messages=HI, tools=[TOOL], tool_choice=choice
        )
        assert [block.type for block in message.content] == ["tool_use"]
        none: Any = {"type": "none"}
        await client.messages.create(model=MODEL, max_tokens=5, messages=HI, tools=[TOOL], tool_choice=none)
    assert "weather" not in prompt(api)


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_are_blocks_with_a_signature(stream: bool) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 2000, "messages": HI}
    asked["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    async with asking(["<think>", "Hm", ".", "</think>", "Rain."], THINKER) as (client, _):
        if stream:
            async with client.messages.stream(**asked) as events:
                message: Any = await events.get_final_message()
        else:
            message = await client.messages.create(**asked)
    thought, said = message.content
    assert (thought.type, thought.thinking) == ("thinking", "Hm.")
    assert len(thought.signature) == 64
    assert (said.type, said.text) == ("text", "Rain.")
    assert message.usage.output_tokens_details.thinking_tokens == 4


@pytest.mark.parametrize(("thinking", "told"), [("enabled", "on"), ("adaptive", "on"), ("disabled", "off")])
async def test_the_template_is_told_whether_to_think(thinking: str, told: str) -> None:
    template = "{% if enable_thinking is defined %}{{ 'on' if enable_thinking else 'off' }}{% endif %}!"
    async with asking(template=template + THINKER) as (client, api):
        await client.messages.create(model=MODEL, max_tokens=5, messages=HI)
        assert prompt(api).startswith("!")
        budget = {"budget_tokens": 1024} if thinking == "enabled" else {}
        asked: Any = {"type": thinking, **budget}
        await client.messages.create(model=MODEL, max_tokens=2000, messages=HI, thinking=asked)
    assert prompt(api).startswith(f"{told}!")


@pytest.mark.parametrize(
    ("script", "asked", "expected"),
    [
        ({"reason": "length"}, {}, ("max_tokens", None)),
        ({"stop": "END"}, {"stop_sequences": ["END", ""]}, ("stop_sequence", "END")),
        ({"stop": "END"}, {}, ("end_turn", None)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_why_it_stopped(
    script: Any, asked: Any, expected: tuple[str, str | None], stream: bool
) -> None:
    async with asking(**script) as (client, api):
        async with client.messages.stream(model=MODEL, max_tokens=50, messages=HI, **asked) as events:
            message: Any = await events.get_final_message()
        if not stream:
            message = await client.messages.create(model=MODEL, max_tokens=50, messages=HI, **asked)
    assert (message.stop_reason, message.stop_sequence) == expected
    assert api.engine.requests[0].stop == [stop for stop in asked.get("stop_sequences", []) if stop]


async def test_what_agents_send_is_taken() -> None:
    """Marks of the cache everywhere, blocks for all, what was called and what came of it, fields that nobody knows here."""
    cached = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = {
        "model": MODEL,
        "max_tokens": 32000,
        "stream": False,
        "metadata": {"user_id": "user_1"},
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=fa690;"},
            {"type": "text", "text": "You are an agent.", **cached},
            {"type": "text", "text": ""},
        ],
        "tools": [{**TOOL, "type": "custom", **cached, "strict": False, "eager_input_streaming": True}],
        "tool_choice": None,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?", **cached}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": ""},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Oslo"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "dry", **cached},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "is_error": True,
                        "content": [{"type": "text", "text": "no such"}, {"type": "text", "text": "city"}],
                    },
                    {"type": "text", "text": "And?", **cached},
                ],
            },
        ],
    }
    template = (
        "{% for m in messages %}[{{ m.role }}|{{ m.name }}|{{ m.content }}|{{ m.reasoning_content }}"
        "{% for c in m.tool_calls or [] %}|{{ c.id }}{{ c.function.arguments.city }}{% endfor %}]{% endfor %}"
        "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}{# </think> <tool_call> #}"
    )
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219,a-2099-01-01"}
    async with (
        asking(template=template) as (_, api),
        httpx.AsyncClient(base_url=api.base, trust_env=False, headers=headers) as http,
    ):
        answer = await http.post("/v1/messages?beta=true", json=body)
    assert answer.status_code == 200, answer.text
    said = prompt(api)
    assert "billing" not in said
    for part in (
        "You are an agent.",
        "Weather?",
        "Rome",
        "Oslo",
        "[tool|weather|dry|",
        "[tool|weather|no such\ncity|",
        "[user||And?|",
    ):
        assert part in said


def test_thoughts_go_back_to_the_template() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Rain."},
    ]
    talk = msgspec.convert([*HI, {"role": "assistant", "content": blocks}], list[MessageParam])
    assert to_chat(talk, None)[1] == {"role": "assistant", "content": "Rain.", "reasoning_content": "Hm."}


async def test_the_system_message_of_two_requests_begins_alike() -> None:
    """An agent's line of attribution changes with each request: no prefix would ever be found again."""
    async with asking() as (client, api):
        for nonce in ("1", "2"):
            line = f"x-anthropic-billing-header: cch={nonce};"
            await client.messages.create(model=MODEL, max_tokens=5, messages=HI, system=f"{line}\nBe brief.")
    first, second = api.engine.requests
    assert first.prompt == second.prompt
    assert "Be brief." in str(first.prompt[0])


async def test_the_model_goes_on_from_the_assistants_words() -> None:
    begun: list[Any] = [*HI, {"role": "assistant", "content": [{"type": "text", "text": "The best is"}]}]
    async with asking() as (client, api):
        await client.messages.create(model=MODEL, max_tokens=5, messages=begun)
    assert prompt(api).endswith("assistant\nThe best is")


async def test_a_form_is_a_constraint() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    config: Any = {"format": {"type": "json_schema", "schema": schema}}
    async with asking(['{"city": "Rome"}']) as (client, api):
        await client.messages.create(model=MODEL, max_tokens=5, messages=HI, output_config=config)
    constraint = api.engine.requests[0].constraint
    assert constraint is not None
    assert json.loads(constraint.text)["properties"] == {"city": {"type": "string"}}


async def test_tokens_are_counted() -> None:
    async with asking() as (client, api):
        count = await client.messages.count_tokens(model=MODEL, messages=HI, system="Be brief.", tools=[TOOL])
        await client.messages.create(model=MODEL, max_tokens=5, messages=HI, system="Be brief.", tools=[TOOL])
    assert count.input_tokens == len(prompt(api).encode())


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": "claude-x"}, "not_found_error", "serves 'tiny'"),
        ({"messages": []}, "invalid_request_error", "at least one message"),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "invalid_request_error",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [IMAGE]}]}]},
            "invalid_request_error",
            "messages[0].content[0].content[0]",
        ),
        ({"max_tokens": -1}, "invalid_request_error", "max_tokens"),
        ({"tool_choice": {"type": "any"}}, "invalid_request_error", "not among 'tools'"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "invalid_request_error",
            "tools[0]",
        ),
        ({"thinking": 5}, "invalid_request_error", "thinking"),
    ],
)
async def test_errors_have_anthropics_shape(changes: dict[str, Any], kind: str, words: str) -> None:
    body = {"model": MODEL, "max_tokens": 5, "messages": HI, **changes}
    async with asking() as (_, api), httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post("/v1/messages", json=body)
        assert (await http.post("/v1/messages/count_tokens", json=body)).status_code == answer.status_code
    assert answer.status_code in {400, 404}
    document = answer.json()
    assert (document["type"], document["error"]["type"]) == ("error", kind)
    assert words in document["error"]["message"]


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        (EngineBusy("full", retry_after=2, waiting=3), anthropic.RateLimitError, "full"),
        (EngineUnavailable("gone"), anthropic.InternalServerError, "overloaded_error"),
        (
            RequestRefused("The prompt has 9 tokens.", param="prompt", code="context_length_exceeded"),
            anthropic.BadRequestError,
            # What agents look for, to shorten the conversation.
            "prompt is too long",
        ),
    ],
)
async def test_the_engines_refusals(refusal: Exception, error: type[Exception], words: str) -> None:
    async with asking(refuse=refusal) as (client, _):
        for stream in (False, True):
            with pytest.raises(error, match=words):
                await client.messages.create(model=MODEL, max_tokens=5, messages=HI, stream=stream)


async def test_what_breaks_off_ends_with_an_error_event() -> None:
    async with asking(reason="error", message="died") as (client, _):
        with pytest.raises(anthropic.APIError, match="died"):
            async with client.messages.stream(model=MODEL, max_tokens=5, messages=HI) as stream:
                await stream.get_final_message()
        with pytest.raises(anthropic.InternalServerError, match="died"):
            await client.messages.create(model=MODEL, max_tokens=5, messages=HI)


async def test_a_key_goes_by_either_header(tmp_path: Path) -> None:
    (tmp_path / "primary").write_text("sk-right")
    body = {"model": MODEL, "max_tokens": 5, "messages": HI}
    cases = [
        ({"x-api-key": "sk-right"}, 200),
        ({"authorization": "Bearer sk-right"}, 200),
        ({"authorization": "Bearer old", "x-api-key": "sk-right"}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({"authorization": "Basic x"}, 401),
        ({}, 401),
    ]
    async with (
        running(keys=tmp_path) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as http,
    ):
        for headers, status in cases:
            answer = await http.post("/v1/messages", json=body, headers=headers)
            assert answer.status_code == status, headers
        assert answer.json()["error"]["type"] == "authentication_error"
        assert (await http.get("/v1/models", headers={"x-api-key": "sk-right"})).status_code == 200
