"""The chat templates that llama.cpp's sources bring: nothing said is lost, and calls are read back."""

import tarfile
from datetime import datetime
from typing import Any, Final

import msgspec
import pytest

from slm_runtime.api.conversation.parsing import THOUGHTS, OutputParser, Text, ToolCall, thoughts
from slm_runtime.api.conversation.tool_formats import tool_formats
from slm_runtime.templates.chat import ChatFormat
from tests.cluster import wheel
from tests.unit.runtime_api.scripted import LOADED, Inline

FOLDER: Final = "/vendor/llama.cpp/models/templates/"
TAGGED: Final = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
FAMILIES: Final = {
    "meta-llama-Llama-3.2-3B-Instruct": '{"name": "weather", "parameters": {"city": "Paris"}}',
    "google-gemma-2-2b-it": TAGGED,
    "Qwen-Qwen2.5-7B-Instruct": TAGGED,
    "Qwen-Qwen3-0.6B": TAGGED,
    "Qwen3-Coder": "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": TAGGED,
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": TAGGED,
    "mistralai-Mistral-Nemo-Instruct-2407": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]',
    "mistralai-Ministral-3-14B-Reasoning-2512": '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}',
    "Mistral-Small-3.2-24B-Instruct-2506": '[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Paris"}',
    "HuggingFaceTB-SmolLM3-3B": TAGGED,
    "microsoft-Phi-3.5-mini-instruct": TAGGED,
}
"""The families that are promised, with a call as each writes it."""
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def called(*ids: str) -> dict[str, Any]:
    calls = [
        {"id": one, "type": "function", "function": {"name": "weather", "arguments": {"city": f"of-{one}"}}}
        for one in ids
    ]
    return said("assistant", "", tool_calls=calls)


TALKS: Final = {
    "a system message": [said("system", "s-one"), said("user", "u-one")],
    "turns": [
        said("system", "s-one"),
        said("user", "u-one"),
        said("assistant", "a-one"),
        said("user", "u-two"),
    ],
    "two system messages": [said("system", "s-one"), said("system", "s-two"), said("user", "u-one")],
    "a later system message": [
        said("user", "u-one"),
        said("assistant", "a-one"),
        said("system", "s-one"),
        said("user", "u-two"),
    ],
    "turns of one speaker": [
        said("user", "u-one"),
        said("user", "u-two"),
        said("assistant", "a-one"),
        said("assistant", "a-two"),
        said("user", "u-three"),
    ],
    "a call": [
        said("user", "u-one"),
        called("call_0123456789"),
        said("tool", "t-one", tool_call_id="call_0123456789"),
        said("assistant", "a-one"),
        said("user", "u-two"),
    ],
    "a call without ids": [said("user", "u-one"), called(""), said("tool", "t-one")],
    "calls side by side": [
        said("user", "u-one"),
        called("abcdefgh1", "abcdefgh2"),
        said("tool", "t-one", tool_call_id="abcdefgh1"),
        said("tool", "t-two", tool_call_id="abcdefgh2"),
    ],
}


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    with tarfile.open(wheel.sdist()) as archive:
        return {
            member.name.rpartition("/")[2].removesuffix(".jinja"): read.read().decode()
            for member in archive
            if FOLDER in member.name and (read := archive.extractfile(member)) is not None
        }


async def chat_of(source: str) -> ChatFormat:
    chat = await ChatFormat.of(msgspec.structs.replace(LOADED, chat_templates={"default": source}), Inline())
    assert chat.problem is None
    return chat


def words(talk: list[dict[str, Any]]) -> list[str]:
    cities = [call["function"]["arguments"]["city"] for m in talk for call in m.get("tool_calls", [])]
    return [m["content"] for m in talk if m["content"]] + cities


@pytest.mark.parametrize("family", FAMILIES)
async def test_nothing_said_is_lost(sources: dict[str, str], family: str) -> None:
    chat = await chat_of(sources[family])
    for what, talk in TALKS.items():
        for tools in (None, [TOOL]):
            prompt = await chat.prompt(talk, tools=tools)
            lost = [word for word in words(talk) if word not in prompt]
            assert not lost, what
            assert prompt.count(LOADED.bos_text) <= 1, what
            assert tools is None or "The weather." in prompt, what


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_call_is_read(sources: dict[str, str], family: str) -> None:
    chat = await chat_of(sources[family])
    marks = thoughts(chat.template)
    written = f"{marks[0]}Hm.{marks[1]}{FAMILIES[family]}" if marks else FAMILIES[family]
    offered = {"weather": TOOL["function"]["parameters"]}  # type: ignore[index]
    for pieces in ([written], list(written)):
        parser = OutputParser(tool_formats(chat), offered, thinks=marks)
        parts = [*(part for piece in pieces for part in parser.feed(piece)), *parser.finish()]
        (call,) = [part for part in parts if isinstance(part, ToolCall)]
        assert (call.name, call.arguments) == ("weather", {"city": "Paris"})
        assert not any(isinstance(part, Text) for part in parts)


async def test_thinking_is_switched(sources: dict[str, str]) -> None:
    ask = [said("user", "u-one")]
    qwen = await chat_of(sources["Qwen-Qwen3-0.6B"])
    assert (await qwen.prompt(ask)).endswith("<|im_start|>assistant\n")
    assert (await qwen.prompt(ask, variables={"enable_thinking": False})).endswith("<think>\n\n</think>\n\n")
    distilled = await chat_of(sources["deepseek-ai-DeepSeek-R1-Distill-Llama-8B"])
    assert (await distilled.prompt(ask)).endswith("<｜Assistant｜><think>\n")  # noqa: RUF001
    ministral = await chat_of(sources["mistralai-Ministral-3-14B-Reasoning-2512"])
    assert thoughts(ministral.template) == THOUGHTS[1]
    llama = await chat_of(sources["meta-llama-Llama-3.2-3B-Instruct"])
    assert thoughts(llama.template) is None
    assert f"{datetime.now().astimezone():%b %Y}" in await llama.prompt(ask)
