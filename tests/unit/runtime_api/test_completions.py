import base64
import logging
import struct
from typing import Any

import httpx
import openai
import pytest

from slm_runtime.api import vectors as embedding
from slm_runtime.engine.client import EngineUnavailable
from tests.unit.runtime_api.scripted import MODEL, Running, Script


async def test_a_text_goes_on(client: openai.AsyncOpenAI, api: Running) -> None:
    answer = await client.completions.create(model=MODEL, prompt="Once")
    assert answer.choices[0].text == "Hello, world!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "text_completion"
    assert api.engine.requests[0].prompt == ["Once"]
    assert api.engine.requests[0].max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        (["a", "b"], [["a"], ["b"]]),
        ([1, 2, 3], [[[1, 2, 3]]]),
        ([[1, 2], [3]], [[[1, 2]], [[3]]]),
    ],
)
async def test_prompts_of_all_kinds(
    client: openai.AsyncOpenAI, api: Running, prompt: Any, prompts: list[Any]
) -> None:
    answer = await client.completions.create(model=MODEL, prompt=prompt, n=2)
    assert [request.prompt for request in api.engine.requests] == prompts
    # Tokens are the prompt as it is; a text gets the model's own before it.
    assert {request.add_special for request in api.engine.requests} == {isinstance(prompts[0][0], str)}
    assert [choice.index for choice in answer.choices] == list(range(2 * len(prompts)))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7 * len(prompts)
    assert answer.usage.completion_tokens == 4 * 2 * len(prompts)


@pytest.mark.parametrize("prompt", ["Once", ["a", "b"]])
async def test_streams(client: openai.AsyncOpenAI, prompt: Any) -> None:
    stream = await client.completions.create(
        model=MODEL, prompt=prompt, stream=True, n=2, echo=True, stream_options={"include_usage": True}
    )
    texts: dict[int, str] = {}
    reasons = {}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            reasons[choice.index] = choice.finish_reason
        last = chunk
    prompts = [prompt] if isinstance(prompt, str) else prompt
    assert texts == {2 * p + i: text + "Hello, world!" for p, text in enumerate(prompts) for i in range(2)}
    assert set(reasons.values()) == {"stop"}
    assert last.usage is not None
    assert last.usage.completion_tokens == 8 * len(prompts)


async def test_logprobs_and_echo(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt="x", logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["Hello", ", ", "world", "!"]
    assert logprobs.text_offset == [0, 5, 7, 12]
    echoed = await client.completions.create(model=MODEL, prompt=list(b"Say: "), echo=True)
    assert echoed.choices[0].text == "Say: Hello, world!"


async def test_the_end_can_be_ignored(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.completions.create(model=MODEL, prompt="x", suffix="", extra_body={"ignore_eos": True})
    assert api.engine.requests[0].ignore_eos


async def test_best_of(client: openai.AsyncOpenAI, api: Running) -> None:
    answer = await client.completions.create(model=MODEL, prompt="x", best_of=3, n=1)
    assert len(answer.choices) == 1
    assert answer.choices[0].logprobs is None
    assert api.engine.requests[0].n == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": []},
        {"prompt": ["a", 1]},
        {"prompt": "x", "best_of": 1, "n": 2},
        {"prompt": "x", "best_of": 2, "stream": True},
        {"prompt": "x", "suffix": "y"},
        {"prompt": ["x"] * 65, "n": 2},
    ],
)
async def test_what_cannot_be(client: openai.AsyncOpenAI, bad: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model=MODEL, **bad)


async def test_an_engine_that_went_before_it_could_echo(client: openai.AsyncOpenAI, api: Running) -> None:
    api.engine.script = Script(refuse=EngineUnavailable("restarting"))
    with pytest.raises(openai.InternalServerError, match="restarting") as caught:
        await client.completions.create(model=MODEL, prompt=[1, 2], echo=True)
    assert (caught.value.status_code, caught.value.code) == (503, "engine_unavailable")


async def test_one_of_several_breaks(
    client: openai.AsyncOpenAI, api: Running, caplog: pytest.LogCaptureFixture
) -> None:
    api.engine.script = Script(reason="error", message="died")
    with pytest.raises(openai.InternalServerError, match="died"):
        await client.completions.create(model=MODEL, prompt=["a", "b"])
    with pytest.raises(openai.APIError, match="died"):
        async for _ in await client.completions.create(model=MODEL, prompt=["a", "b"], stream=True):
            pass
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_prompt_that_can_t_fit_is_not_echoed(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"2049 tokens.* 2048") as caught:
        await client.completions.create(model=MODEL, prompt=[1] * 2049, echo=True)
    assert caught.value.code == "context_length_exceeded"


async def test_vectors_that_would_fill_memory_are_not_made(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "NUMBERS", 2 * 3)
    for inputs, status in ((3, 200), (4, 400)):
        answer = await http.post("/api/embed", json={"model": MODEL, "input": ["a"] * inputs})
        assert answer.status_code == status
    assert "more than the 3" in answer.json()["error"]


async def test_vectors_of_what_is_too_long_if_asked(client: openai.AsyncOpenAI, api: Running) -> None:
    for extra, truncate in (({}, False), ({"truncate_prompt_tokens": -1}, True)):
        await client.embeddings.create(model=MODEL, input="a", extra_body=extra)
        assert api.engine.embeddings[-1].truncate == truncate


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=MODEL, input=["a", "b"])
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx([0.6, 0.8])
    assert answer.usage.prompt_tokens == 6
    plain = await client.embeddings.create(model=MODEL, input="a", encoding_format="float", dimensions=1)
    assert plain.data[0].embedding == [1.0]
    raw = await client.embeddings.with_raw_response.create(model=MODEL, input="a", encoding_format="base64")
    vector = base64.b64decode(raw.http_response.json()["data"][0]["embedding"])
    assert struct.unpack("<2f", vector) == pytest.approx((0.6, 0.8))


@pytest.mark.parametrize(
    "bad",
    [
        {"input": []},
        {"input": ""},
        {"input": ["a", ""]},
        {"input": "a", "dimensions": 0},
        {"input": "a", "dimensions": 3},
    ],
)
async def test_embeddings_that_cannot_be(client: openai.AsyncOpenAI, bad: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model=MODEL, **bad)
