"""Conversations longer than the context: whole turns go, the oldest first, where the API says so."""

from typing import Any

import httpx
import msgspec
import pytest

from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, Script, ScriptedEngine, running

CONTEXT = 400
"""Tokens, and the scripted engine makes one of each byte."""
TEMPLATE = "{% for m in messages %}[{{ m.role[0] }}:{{ m.content }}]{% endfor %}"
LONG = "x" * 60


def engine() -> ScriptedEngine:
    info = msgspec.structs.replace(LOADED, context_length=CONTEXT, chat_templates={"default": TEMPLATE})
    return ScriptedEngine(Script(), info)


def turns(count: int) -> list[dict[str, str]]:
    """A system message, and questions with their answers, the last unanswered; each has its number."""
    said = [{"role": "system", "content": "rules"}]
    for number in range(count):
        said.append({"role": "user", "content": f"q{number}{LONG}"})
        said.append({"role": "assistant", "content": f"a{number}{LONG}"})
    return said[:-1]


async def prompt_of(api: Running, path: str, **body: Any) -> str:
    async with httpx.AsyncClient(base_url=api.base, trust_env=False, timeout=30) as http:
        answer = await http.post(path, json={"model": MODEL, "stream": False, **body})
    assert answer.status_code == 200, answer.text
    (prompt,) = api.engine.requests[-1].prompt
    assert isinstance(prompt, str)
    return prompt


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 40])
async def test_the_newest_turns_that_fit_stay_with_the_rules(count: int) -> None:
    async with running(engine()) as api:
        prompt = await prompt_of(api, "/api/chat", messages=turns(count), options={"num_predict": 50})
    assert prompt.startswith("[s:rules]")
    assert f"q{count - 1}" in prompt
    assert len(prompt) < CONTEXT
    kept = [number for number in range(count) if f"q{number}{LONG}" in prompt]
    assert kept == list(range(kept[0], count))
    if kept[0] > 0:
        # No half turn, room for the answer, and one turn more would not have left it.
        assert prompt.startswith(f"[s:rules][u:q{kept[0]}")
        assert len(prompt) <= CONTEXT - 50 < len(prompt) + 2 * len(LONG)


async def test_the_last_question_stays_whatever_its_length() -> None:
    messages = [*turns(3), {"role": "assistant", "content": "a"}, {"role": "user", "content": "y" * CONTEXT}]
    async with running(engine()) as api:
        prompt = await prompt_of(api, "/api/chat", messages=messages)
        # What is left of it is the engine's to cut.
        assert prompt == f"[s:rules][u:{'y' * CONTEXT}]"
        assert api.engine.requests[-1].keep_on_overflow == 4


async def test_a_turn_in_which_tools_are_called_stays_whole() -> None:
    called = [
        {"role": "assistant", "content": "call"},
        {"role": "tool", "content": LONG, "tool_name": "f"},
    ]
    async with running(engine()) as api:
        messages = [*turns(5), *called]
        prompt = await prompt_of(api, "/api/chat", messages=messages, options={"num_predict": 200})
    assert prompt.startswith("[s:rules][u:q4")
    assert prompt.endswith(f"[a:call][t:{LONG}]")


async def test_where_truncation_is_declined_nothing_goes() -> None:
    async with running(engine()) as api:
        prompt = await prompt_of(api, "/api/chat", messages=turns(9), truncate=False)
        assert "q0" in prompt
        assert api.engine.requests[-1].keep_on_overflow is None
        prompt = await prompt_of(api, "/v1/chat/completions", messages=turns(9))
        assert "q0" in prompt
        assert api.engine.requests[-1].keep_on_overflow is None
        prompt = await prompt_of(api, "/v1/responses", input=turns(9))
        assert "q0" in prompt


async def test_responses_are_truncated_where_they_ask_for_it() -> None:
    async with running(engine()) as api:
        prompt = await prompt_of(api, "/v1/responses", input=turns(9), truncation="auto")
    assert prompt.startswith("[s:rules][u:q")
    assert "q8" in prompt
    assert "q0" not in prompt
    assert len(prompt) <= CONTEXT - CONTEXT // 4
