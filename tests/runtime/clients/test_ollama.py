"""Ollama's own client against the real model."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import ollama
import pytest

from tests.runtime.api.server import KEY, ServeProcess

pytestmark = pytest.mark.runtime

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY = {"temperature": 0, "num_predict": 40}
CALL_FOR = "Call capital({})"


def capital(country: str) -> str:
    """Tell the capital of a country.

    Args:
        country: its name
    """
    return country


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
    assert [model.model for model in client.list().models] == [f"{smol.name}:latest"]
    assert client.show(smol.name).details.quantization_level == "Q4_1"  # type: ignore[union-attr]
    assert client.pull(smol.name).status == "success"


def test_without_a_key(smol: ServeProcess) -> None:
    stranger = ollama.Client(host=smol.base, trust_env=False)
    with pytest.raises(ollama.ResponseError) as caught:
        stranger.list()
    stranger._client.close()
    assert caught.value.status_code == 401


@pytest.fixture
async def async_client(smol: ServeProcess) -> AsyncIterator[ollama.AsyncClient]:
    it = ollama.AsyncClient(host=smol.base, headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
    yield it
    await it._client.aclose()


async def test_async_streams_side_by_side(async_client: ollama.AsyncClient, smol: ServeProcess) -> None:
    async def ask() -> str:
        stream = await async_client.generate(smol.name, QUESTION[0]["content"], options=GREEDY, stream=True)
        return "".join([part.response async for part in stream])

    assert await asyncio.gather(*(ask() for _ in range(4))) == ["The capital of France is Paris."] * 4


async def test_a_stream_that_is_left_frees_its_sequence(
    async_client: ollama.AsyncClient, smol: ServeProcess
) -> None:
    stream = await async_client.generate(smol.name, "Tell a very long story.", stream=True)
    async for _ in stream:
        break
    await stream.aclose()
    async with asyncio.timeout(20):
        while smol.metric("slm_runtime_sequences_running") > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_a_tool_is_called_as_it_was_before(client: ollama.Client, smol: ServeProcess) -> None:
    """A model so small calls what it sees called; Ollama's protocol can't demand it."""

    def called(country: str) -> list[dict[str, Any]]:
        call = {"function": {"name": "capital", "arguments": {"country": country}}}
        return [
            {"role": "user", "content": CALL_FOR.format(country)},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]

    messages = [*called("Italy"), *called("Spain"), {"role": "user", "content": CALL_FOR.format("France")}]
    asked: Any = {"model": smol.name, "messages": messages, "tools": [capital], "options": GREEDY}
    (call,) = client.chat(**asked).message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("capital", {"country": "France"})
    parts = list(client.chat(**asked, stream=True))
    assert [call.function.arguments for part in parts for call in part.message.tool_calls or []] == [
        {"country": "France"}
    ]
    assert not any(part.message.content for part in parts)


def test_json_without_a_schema(client: ollama.Client, smol: ServeProcess) -> None:
    answer = client.generate(smol.name, "A JSON object with a city:", format="json", options=GREEDY)
    assert answer.response.lstrip().startswith("{")


def test_what_is_loaded(client: ollama.Client, smol: ServeProcess) -> None:
    (loaded,) = client.ps().models
    assert (loaded.model, loaded.context_length) == (f"{smol.name}:latest", 2048)
    assert client.generate(smol.name).done_reason == "load"


def test_embeddings(client: ollama.Client, smol: ServeProcess) -> None:
    cat, like, rates = client.embed(
        smol.name, ["A cat sits.", "A cat sat.", "Interest rates rose."]
    ).embeddings
    assert len(cat) == 576
    assert product(cat, cat) == pytest.approx(1, abs=1e-3)
    assert product(cat, like) > product(cat, rates)


def product(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("bad", "status", "words"),
    [
        ({"model": "other"}, 404, "smollm2"),
        ({"options": {"temperature": -1}}, 400, "temperature"),
        ({"options": {"stop": 5}}, 400, "stop"),
        ({"format": {"type": 5}}, 400, "json_schema"),
        ({"think": True}, 400, "think"),
        ({"keep_alive": "soon"}, 400, "keep_alive"),
    ],
)
def test_refusals(
    client: ollama.Client, smol: ServeProcess, bad: dict[str, Any], status: int, words: str, stream: bool
) -> None:
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        list(client.chat(**{"model": smol.name, "messages": QUESTION, "stream": stream, **bad}))
    assert caught.value.status_code == status


def test_what_only_the_operator_does(client: ollama.Client, smol: ServeProcess) -> None:
    for call in (
        lambda: client.create("x", from_=smol.name),
        lambda: client.copy(smol.name, "x"),
        lambda: client.delete(smol.name),
        lambda: client.push(smol.name),
        lambda: client.pull("llama3.2"),
    ):
        with pytest.raises(ollama.ResponseError, match="SLMDeployment") as caught:
            call()
        assert caught.value.status_code == 501
