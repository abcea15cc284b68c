"""A model that writes into channels, as gpt-oss does, through each API."""

import json
from typing import Any

import httpx
import pytest

from slm_contract.config import PromptConfig
from tests.unit.runtime_api.scripted import MODEL, Script, ScriptedEngine, running

TEMPLATE = (
    "{% for t in tools or [] %}{{ t }}{% endfor %}"
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c }}{% endfor %}<|end|>{% endfor %}"
    "{# <|channel|>analysis #}<|start|>assistant"
)
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
SAID = f"{THOUGHT}<|channel|>final<|message|>Hello."
CALLED = (
    f'{THOUGHT}<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{{"city": "Paris"}}'
)


async def answer(path: str, text: str, **more: Any) -> tuple[httpx.Response, ScriptedEngine]:
    engine = ScriptedEngine(Script(pieces=list(text)))
    async with (
        running(engine, prompt=PromptConfig(template=TEMPLATE)) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as http,
    ):
        got = await http.post(path, json={**ASK, **more})
    assert got.status_code == 200, got.text
    return got, engine


async def test_what_is_thought_and_what_is_said() -> None:
    got, engine = await answer("/v1/chat/completions", SAID)
    message = got.json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello.", "Hm.")
    assert engine.requests[0].show_special
    got, _ = await answer("/api/chat", SAID, stream=False)
    message = got.json()["message"]
    assert (message["content"], message["thinking"]) == ("Hello.", "Hm.")
    got, _ = await answer("/v1/chat/completions", SAID, stream=True)
    lines = [line.removeprefix("data: ") for line in got.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello."
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hm."


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_what_is_called(path: str) -> None:
    got, _ = await answer(path, CALLED, stream=False, tools=[TOOL])
    message = got.json()["choices"][0]["message"] if path.startswith("/v1") else got.json()["message"]
    (call,) = message["tool_calls"]
    given = call["function"]["arguments"]
    assert (json.loads(given) if isinstance(given, str) else given) == {"city": "Paris"}
    assert not message["content"]


async def test_a_form_is_that_of_the_final_channel() -> None:
    _, engine = await answer("/v1/chat/completions", '{"a": 1}', response_format={"type": "json_object"})
    assert str(engine.requests[0].prompt[0]).endswith("<|start|>assistant<|channel|>final<|message|>")
