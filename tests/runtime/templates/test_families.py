"""The chat templates that llama.cpp's sources bring: nothing said is lost, and calls are read back."""

import tarfile
from datetime import datetime
from typing import Any, Final

import msgspec
import pytest

from slm_runtime.api.conversation.growing import ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Text
from slm_runtime.api.conversation.thoughts import MISTRAL, thoughts
from slm_runtime.api.conversation.tool_formats import known_formats, tool_formats
from slm_runtime.templates.adaptations import one_call_each
from slm_runtime.templates.chat import CHATML, ChatFormat
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
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where."}},
            "required": ["city"],
        },
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
            if FOLDER in member.name
            and member.name.endswith(".jinja")
            and (read := archive.extractfile(member)) is not None
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
    written = f"{marks.begin}Hm.{marks.end}{FAMILIES[family]}" if marks else FAMILIES[family]
    offered = {"weather": TOOL["function"]["parameters"]}  # type: ignore[index]
    for pieces in ([written], list(written)):
        parser = OutputParser(tool_formats(chat), offered, thinks=marks)
        parts = [*(part for piece in pieces for part in parser.feed(piece)), *parser.finish()]
        (call,) = [part for part in parts if isinstance(part, ToolCall)]
        assert (call.name, call.arguments) == ("weather", {"city": "Paris"})
        assert not any(isinstance(part, Text) for part in parts)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("LFM2-8B-A1B", '<|tool_call_start|>[weather(city="of-a\\"1", on=True)]<|tool_call_end|>'),
        ("LFM2.5-Instruct", '<|tool_call_start|>[weather(city="of-a\\"1", on=True)]<|tool_call_end|>'),
        (
            "ibm-granite-granite-3.3-2B-Instruct",
            '<|tool_call|>[{"name":"weather","arguments":{"city":"of-a\\"1","on":true}}]',
        ),
    ],
)
async def test_a_family_reads_its_calls_as_it_writes_them(
    sources: dict[str, str], name: str, written: str
) -> None:
    chat = await chat_of(sources[name])
    made = called('a"1')
    made["tool_calls"][0]["function"]["arguments"]["on"] = True
    assert written in await chat.prompt([said("user", "u-one"), made, said("tool", "t-one")], tools=[TOOL])


@pytest.mark.parametrize(
    "name", ["openai-gpt-oss-120b", "LFM2.5-8B-A1B", "Qwen-Qwen3-0.6B", "google-gemma-4-31B-it"]
)
async def test_what_led_to_a_call_is_shown_again(sources: dict[str, str], name: str) -> None:
    chat = await chat_of(sources[name])
    made = {**called("abcdefgh1"), "content": "c-one", "reasoning_content": "r-one"}
    prompt = await chat.prompt([said("user", "u-one"), made, said("tool", "t-one")], tools=[TOOL])
    assert "r-one" in prompt


async def test_thinking_is_switched(sources: dict[str, str]) -> None:
    ask = [said("user", "u-one")]
    qwen = await chat_of(sources["Qwen-Qwen3-0.6B"])
    assert (await qwen.prompt(ask)).endswith("<|im_start|>assistant\n")
    assert (await qwen.prompt(ask, variables={"enable_thinking": False})).endswith("<think>\n\n</think>\n\n")
    distilled = await chat_of(sources["deepseek-ai-DeepSeek-R1-Distill-Llama-8B"])
    assert (await distilled.prompt(ask)).endswith("<｜Assistant｜><think>\n")  # noqa: RUF001
    ministral = await chat_of(sources["mistralai-Ministral-3-14B-Reasoning-2512"])
    assert thoughts(ministral.template) is MISTRAL
    llama = await chat_of(sources["meta-llama-Llama-3.2-3B-Instruct"])
    assert thoughts(llama.template) is None
    assert f"{datetime.now().astimezone():%b %Y}" in await llama.prompt(ask)


THINK: Final = "<think>"
FORMATS: Final = {
    "Apertus-8B-Instruct": ("<|inner_prefix|>", "apertus"),
    "Apriel-1.6-15b-Thinker-fixed": ("", "listed"),
    "Bielik-11B-v3.0-Instruct": (THINK, "generic"),
    "ByteDance-Seed-OSS": ("<seed:think>", "seed"),
    "Cohere2MoE": ("<|START_THINKING|>", "command"),
    "CohereForAI-c4ai-command-r-plus-tool_use": ("", "command-r"),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("<|START_THINKING|>", "command"),
    "GLM-4.6": (THINK, "glm generic"),
    "GLM-4.7-Flash": (THINK, "glm generic"),
    "GigaChat3-10B-A1.8B": ("", "gigachat"),
    "GigaChat3.1-10B-A1.8B": ("", "gigachat"),
    "HuggingFaceTB-SmolLM3-3B": (THINK, "generic"),
    "Kimi-K2-Instruct": ("", "kimi"),
    "Kimi-K2-Thinking": (THINK, "kimi"),
    "Kimi-K3": ("", ""),
    "LFM2-8B-A1B": ("", "lfm2"),
    "LFM2.5-8B-A1B": (THINK, "lfm2"),
    "LFM2.5-Instruct": (THINK, "lfm2"),
    "MiMo-VL": ("", "generic"),
    "MiniMax-M1": ("", "listed"),
    "MiniMax-M2": (THINK, "minimax"),
    "MiniMax-M3": ("", ""),
    "Mistral-Small-3.2-24B-Instruct-2506": ("", "mistral"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (THINK, "generic"),
    "NVIDIA-Nemotron-Nano-v2": (THINK, "nemotron"),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("", "generic"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("", "generic"),
    "Qwen-QwQ-32B": (THINK, "generic"),
    "Qwen-Qwen2.5-7B-Instruct": ("", "generic"),
    "Qwen-Qwen3-0.6B": (THINK, "generic"),
    "Qwen3-Coder": ("", "generic"),
    "Qwen3.5-4B": (THINK, "generic"),
    "Reka-Edge": (THINK, "generic"),
    "Spark2.5": (THINK, "glm"),
    "StepFun3.5-Flash": (THINK, "generic"),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": (THINK, "deepseek generic"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": (THINK, "deepseek generic"),
    "deepseek-ai-DeepSeek-V3.1": (THINK, "deepseek generic"),
    "deepseek-ai-DeepSeek-V3.2": (THINK, ""),
    "deepseek-ai-DeepSeek-V4": (THINK, ""),
    "deepseek-ai-DeepSeek-V4-Flash-0731": (THINK, ""),
    "google-gemma-2-2b-it": ("", "generic"),
    "google-gemma-4-31B-it": ("<|channel>thought", "gemma"),
    "google-gemma-4-31B-it-interleaved": ("<|channel>thought", "gemma"),
    "ibm-granite-granite-3.3-2B-Instruct": (THINK, "granite"),
    "ibm-granite-granite-4.0": ("", "generic"),
    "ibm-granite-granite-4.1": ("", "generic"),
    "inclusionai-ling-3.0-flash": (THINK, "glm generic"),
    "llama-cpp-deepseek-r1": (THINK, "deepseek generic"),
    "llama-cpp-rwkv-world": (THINK, "generic"),
    "meetkai-functionary-medium-v3.1": ("", "functionary"),
    "meetkai-functionary-medium-v3.2": ("", ""),
    "meta-llama-Llama-3.1-8B-Instruct": ("", "llama python"),
    "meta-llama-Llama-3.2-3B-Instruct": ("", "llama python"),
    "meta-llama-Llama-3.3-70B-Instruct": ("", "llama python"),
    "microsoft-Phi-3.5-mini-instruct": ("", "generic"),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("[THINK]", "mistral"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("", "mistral"),
    "moonshotai-Kimi-K2": ("", "kimi"),
    "muse-glimmer": ("", ""),
    "openai-gpt-oss-120b": ("<|channel|>analysis<|message|>", "harmony"),
    "openbmb-MiniCPM5-1B": (THINK, "minicpm"),
    "poolside-Laguna-S-2.1": (THINK, "glm"),
    "poolside-Laguna-XS-2.1": (THINK, "glm"),
    "poolside-Laguna-XS.2": (THINK, "glm"),
    "tencent-Hy3": ("", ""),
    "unsloth-Apriel-1.5": ("<thinking>", "listed generic"),
    "unsloth-mistral-Devstral-Small-2507": ("", "mistral"),
    "upstage-Solar-Open-100B": ("", ""),
}
"""Of every template, how its model marks its reasoning, and how it writes calls; none: neither is claimed."""
UNUSABLE: Final = {"fireworks-ai-llama-3-firefunction-v2"}
"""It wants its tools as text in a variable of its own."""


async def chat_of_file(sources: dict[str, str], name: str) -> ChatFormat:
    """A template for tools comes beside one without."""
    templates = {"default": CHATML, "tool_use": sources[name]}
    if not name.endswith("tool_use"):
        templates = {"default": sources[name]}
    return await ChatFormat.of(msgspec.structs.replace(LOADED, chat_templates=templates), Inline())


async def test_every_template_is_recognised(sources: dict[str, str]) -> None:
    found, unusable = {}, set()
    for name in sources:
        chat = await chat_of_file(sources, name)
        marks = thoughts(chat.tool_template)
        formats = dict.fromkeys(family.name for family in known_formats(chat))
        if chat.problem is None:
            found[name] = (marks.begin if marks else "", " ".join(formats))
        else:
            unusable.add(name)
    assert found == FORMATS
    assert unusable == UNUSABLE


@pytest.mark.parametrize("name", sorted(name for name, (_, known) in FORMATS.items() if known))
async def test_what_a_template_writes_for_calls_is_read_back(sources: dict[str, str], name: str) -> None:
    """Where the template writes none, what it is told instead."""
    chat = await chat_of_file(sources, name)
    ask, alone = [said("user", "u-one")], {"add_generation_prompt": False}
    begun = await chat.prompt(ask, tools=[TOOL])
    ids = ["abcdefgh1", "abcdefgh2"]
    answered = await chat.prompt([*ask, said("assistant", "a-one")], tools=[TOOL], variables=alone)
    end = answered.rpartition("a-one")[2]
    for count in (1,) if one_call_each in chat.tool_adaptations else (1, 2):
        written = await chat.prompt([*ask, called(*ids[:count])], tools=[TOOL], variables=alone)
        head = begun if written.startswith(begun) else written[: written.index("u-one") + len("u-one")]
        turn = written.removeprefix(head).removesuffix(end)
        offered = {"weather": TOOL["function"]["parameters"]}  # type: ignore[index]
        for pieces in ([turn], list(turn)):
            parser = OutputParser(tool_formats(chat), offered, thinks=thoughts(chat.tool_template))
            parts = [*(part for piece in pieces for part in parser.feed(piece)), *parser.finish()]
            calls = [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]
            assert calls == [("weather", {"city": f"of-{one}"}) for one in ids[:count]], turn
