"""Anthropic's own client against the real model."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.runtime.api.server import KEY, ServeProcess

pytestmark = pytest.mark.runtime

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY: Any = {"temperature": 0}
"""The client of today has no such parameter; the API has."""
TOOL: Any = {
    "name": "capital",
    "description": "Looks up a country's capital.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def claude(smol: ServeProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=smol.base, api_key=KEY, max_retries=0, timeout=120) as it:
        yield it


def test_a_message(claude: anthropic.Anthropic, smol: ServeProcess) -> None:
    message = claude.messages.create(
        model=smol.name,
        messages=QUESTION,
        max_tokens=24,
        extra_body=GREEDY,
        system="You are a helpful assistant.",
    )
    (block,) = message.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert message.stop_reason in {"end_turn", "max_tokens"}
    assert 0 < message.usage.output_tokens <= 24


def test_the_stream_says_the_same(claude: anthropic.Anthropic, smol: ServeProcess) -> None:
    asked: dict[str, Any] = {"model": smol.name, "messages": QUESTION, "max_tokens": 24, "extra_body": GREEDY}
    whole = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    # The prompt was just seen.
    assert (final.usage.cache_read_input_tokens or 0) > final.usage.input_tokens


def test_a_demanded_tool_is_called_and_its_result_read(
    claude: anthropic.Anthropic, smol: ServeProcess
) -> None:
    choice: Any = {"type": "any"}
    asked: dict[str, Any] = {"model": smol.name, "max_tokens": 60, "extra_body": GREEDY, "tools": [TOOL]}
    with claude.messages.stream(**asked, messages=QUESTION, tool_choice=choice) as stream:
        message = stream.get_final_message()
    (call,) = message.content
    assert (call.type, message.stop_reason) == ("tool_use", "tool_use")
    assert set(call.input) == {"city"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Paris"}]}
    talk = [*QUESTION, message.to_param(), {"role": "user", "content": [result]}]
    answer = claude.messages.create(**asked, messages=talk)
    assert answer.usage.output_tokens > 0


def test_tokens_are_counted_as_they_are_read(claude: anthropic.Anthropic, smol: ServeProcess) -> None:
    asked: dict[str, Any] = {"model": smol.name, "messages": QUESTION, "tools": [TOOL]}
    count = claude.messages.count_tokens(**asked)
    used = claude.messages.create(**asked, max_tokens=1).usage
    assert count.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)


def test_another_model_is_not_found(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not found"):
        claude.messages.create(model="claude-x", messages=QUESTION, max_tokens=5)
