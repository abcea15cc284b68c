"""OpenAI's own client against the real model: it is the judge of what the server sends."""

import asyncio
import json

import openai
import pytest

from tests.runtime.api.server import ServeProcess

pytestmark = pytest.mark.runtime

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def test_the_model_answers(client: openai.OpenAI, smol: ServeProcess) -> None:
    answer = client.chat.completions.create(
        model=smol.name,
        messages=QUESTION,
        temperature=0,
        max_tokens=24,  # type: ignore[arg-type]
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 20
    assert 0 < answer.usage.completion_tokens <= 24


def test_the_stream_says_the_same(client: openai.OpenAI, smol: ServeProcess) -> None:
    asked = {"model": smol.name, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    # The prompt was just seen: its prefill was spared, but for its last token.
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens >= whole.usage.prompt_tokens - 1


def test_a_seed_repeats_and_choices_differ(client: openai.OpenAI, smol: ServeProcess) -> None:
    def ask(seed: int) -> list[str | None]:
        answer = client.chat.completions.create(
            model=smol.name,
            messages=QUESTION,
            seed=seed,
            n=2,
            max_tokens=12,
            temperature=1.5,  # type: ignore[arg-type]
        )
        return [choice.message.content for choice in answer.choices]

    first = ask(7)
    assert ask(7) == first
    assert first[0] != first[1]
    assert ask(8) != first


def test_stop_ends_before_it(client: openai.OpenAI, smol: ServeProcess) -> None:
    answer = client.chat.completions.create(
        model=smol.name,
        messages=QUESTION,
        temperature=0,
        max_tokens=24,
        stop=["Paris"],  # type: ignore[arg-type]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" not in (answer.choices[0].message.content or "")


def test_a_prompt_too_long_gets_the_numbers(client: openai.OpenAI, smol: ServeProcess) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=smol.name, messages=[{"role": "user", "content": "word " * 5000}]
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert "2048" in str(caught.value)


def test_json_output_is_json(client: openai.OpenAI, smol: ServeProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "inhabitants": {"type": "integer"}},
        "required": ["city", "inhabitants"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=smol.name,
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
    )
    city = json.loads(answer.choices[0].message.content or "")
    assert isinstance(city["city"], str)
    assert isinstance(city["inhabitants"], int)


def test_logprobs_are_of_the_text(client: openai.OpenAI, smol: ServeProcess) -> None:
    answer = client.chat.completions.create(
        model=smol.name,
        messages=QUESTION,
        temperature=0,
        max_tokens=60,
        logprobs=True,
        top_logprobs=3,  # type: ignore[arg-type]
    )
    assert answer.choices[0].finish_reason == "stop"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    text = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert text.decode() == answer.choices[0].message.content
    for token in logprobs.content:
        assert token.logprob <= 0
        assert token.logprob == max(top.logprob for top in token.top_logprobs)


def test_a_demanded_tool_is_called(client: openai.OpenAI, smol: ServeProcess) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=smol.name,
        messages=QUESTION,  # type: ignore[arg-type]
        tools=[{"type": "function", "function": {"name": "capital", "parameters": parameters}}],
        tool_choice="required",
        temperature=0,
        max_tokens=60,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "capital"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_completions_echo_and_tokens(client: openai.OpenAI, smol: ServeProcess) -> None:
    text = (
        client.completions.create(
            model=smol.name, prompt="The capital of France is", temperature=0, max_tokens=4, echo=True
        )
        .choices[0]
        .text
    )
    assert text.startswith("The capital of France is")
    assert "Paris" in text


def test_responses(client: openai.OpenAI, smol: ServeProcess) -> None:
    with client.responses.stream(
        model=smol.name, input=QUESTION[0]["content"], temperature=0, max_output_tokens=24
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "Paris" in final.output_text
    assert "".join(deltas) == final.output_text


def test_embeddings_of_like_texts_are_alike(client: openai.OpenAI, smol: ServeProcess) -> None:
    texts = ["A cat sits on the mat.", "A cat sat on a mat.", "Interest rates rose by a quarter point."]
    one, like, other = (
        item.embedding for item in client.embeddings.create(model=smol.name, input=texts).data
    )

    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert product(one, one) == pytest.approx(1, abs=1e-3)
    assert product(one, like) > product(one, other)


async def test_many_at_once(async_client: openai.AsyncOpenAI, smol: ServeProcess) -> None:
    async def ask(number: int) -> str:
        stream = await async_client.chat.completions.create(
            model=smol.name,
            messages=[{"role": "user", "content": f"Count to {number}."}],
            stream=True,
            max_tokens=8,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert all(await asyncio.gather(*(ask(number) for number in range(8))))


async def test_leaving_frees_the_sequence(async_client: openai.AsyncOpenAI, smol: ServeProcess) -> None:
    stream = await async_client.chat.completions.create(
        model=smol.name,
        messages=QUESTION,
        stream=True,
        max_tokens=1500,
        logit_bias={"2": -100},  # type: ignore[arg-type]
    )
    async for _ in stream:
        break
    await stream.close()
    async with asyncio.timeout(20):
        while smol.metric("slm_runtime_sequences_running") > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_a_wrong_key_and_a_wrong_model(smol: ServeProcess) -> None:
    with (
        openai.OpenAI(base_url=f"{smol.base}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_models(client: openai.OpenAI, smol: ServeProcess) -> None:
    assert [model.id for model in client.models.list()] == [smol.name]
