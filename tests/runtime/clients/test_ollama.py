"""Ollama's own client against the real model."""

import json
from collections.abc import Iterator

import ollama
import pytest

from tests.runtime.api.server import KEY, ServeProcess

pytestmark = pytest.mark.runtime

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY = {"temperature": 0, "num_predict": 24}


@pytest.fixture
def client(smol: ServeProcess) -> Iterator[ollama.Client]:
    it = ollama.Client(host=smol.base, headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
    yield it
    it._client.close()


def test_chat_and_generate_say_the_same(client: ollama.Client, smol: ServeProcess) -> None:
    chat = client.chat(smol.name, QUESTION, options=GREEDY)
    assert "Paris" in (chat.message.content or "")
    streamed = list(client.chat(smol.name, QUESTION, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in streamed) == chat.message.content
    assert streamed[-1].eval_count == chat.eval_count
    generated = client.generate(smol.name, QUESTION[0]["content"], options=GREEDY)
    assert generated.response == chat.message.content
    assert generated.eval_duration
    assert generated.total_duration >= generated.eval_duration  # type: ignore[operator]


def test_a_context_goes_on(client: ollama.Client, smol: ServeProcess) -> None:
    first = client.generate(smol.name, "My name is Ada. Say hello.", options=GREEDY)
    second = client.generate(smol.name, "What is my name?", context=first.context, options=GREEDY)
    assert second.prompt_eval_count > first.prompt_eval_count  # type: ignore[operator]


def test_a_format_is_kept(client: ollama.Client, smol: ServeProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat(smol.name, QUESTION, format=schema, options={"temperature": 0, "num_predict": 60})
    assert set(json.loads(answer.message.content or "")) == {"city"}


def test_a_prompt_too_long_is_cut_unless_told_otherwise(client: ollama.Client, smol: ServeProcess) -> None:
    long = "word " * 5000
    answer = client.generate(smol.name, long, raw=True, options={"num_predict": 2})
    assert answer.prompt_eval_count is not None
    assert answer.prompt_eval_count < 2048


def test_the_catalogue(client: ollama.Client, smol: ServeProcess) -> None:
    assert [model.model for model in client.list().models] == [smol.name]
    assert client.show(smol.name).details.quantization_level == "Q4_1"  # type: ignore[union-attr]
    assert client.pull(smol.name).status == "success"


def test_without_a_key(smol: ServeProcess) -> None:
    stranger = ollama.Client(host=smol.base, trust_env=False)
    with pytest.raises(ollama.ResponseError) as caught:
        stranger.list()
    stranger._client.close()
    assert caught.value.status_code == 401
