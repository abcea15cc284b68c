"""`echo` with `logprobs` and `max_tokens` 0, by OpenAI's own client against the real model."""

import asyncio
import math
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np
import openai
import pytest

from slm_contract.config import ModelConfig
from slm_runtime.engine.llama_cpp.backends import load_backends
from tests.runtime.api.server import KEY, ServeProcess, serving
from tests.support.models import smollm2

pytestmark = pytest.mark.runtime

TEXT = (
    "The capital of France is Paris, and that of Germany is Berlin. Größe: 5 €.\n"
    "Once upon a time there was a king who had three daughters, and the youngest was so beautiful that the sun itself, "
    "which has seen so much, was astonished whenever it shone in her face."
)
"""More tokens than are scored in one step."""
# In nats. Sums come in another order where a sequence's cells lie otherwise or a step has more tokens, and now and then that
# rounds one of the 8-bit activations to its other side. The rows of another place are nats away, all of them.
ROUNDING = 1
MEAN_ROUNDING = 0.15


def scored(client: openai.OpenAI, smol: ServeProcess, prompt: Any, **asked: Any) -> Any:
    asked = {"temperature": 0, "max_tokens": 0, "logprobs": 1, "echo": True, **asked}
    return client.completions.create(model=smol.name, prompt=prompt, **asked)


def token_ids(smol: ServeProcess, text: str) -> list[int]:
    """By the vendor's own library, from the file that is served."""
    vocabulary = llama_cpp.Llama(str(smollm2()), vocab_only=True, verbose=False)
    return vocabulary.tokenize(text.encode(), add_bos=False, special=True)


@pytest.fixture(scope="module")
def ids(smol: ServeProcess) -> list[int]:
    return token_ids(smol, TEXT)


def test_each_token_is_as_likely_as_when_it_is_asked_for_alone(
    client: openai.OpenAI, smol: ServeProcess, ids: list[int]
) -> None:
    logprobs = scored(client, smol, TEXT, logprobs=20).choices[0].logprobs
    assert logprobs.token_logprobs[0] is None
    assert len(logprobs.tokens) == len(ids)
    differences, told = [], 0
    for place in range(1, len(ids)):
        alone = client.completions.create(
            model=smol.name, prompt=ids[:place], temperature=0, max_tokens=1, logprobs=20
        )
        assert alone.choices[0].logprobs is not None
        tops = alone.choices[0].logprobs.top_logprobs
        assert tops is not None
        ours, theirs = logprobs.top_logprobs[place], tops[0]
        differences += [abs(ours[token] - theirs[token]) for token in ours.keys() & theirs.keys()]
        if logprobs.tokens[place] in theirs:
            told += 1
            differences.append(abs(logprobs.token_logprobs[place] - theirs[logprobs.tokens[place]]))
    print(f"rounding up to {max(differences):.3f} nats, {np.mean(differences):.4f} on average")
    assert len(ids) > 32
    assert told > len(ids) / 2
    assert len(differences) > 15 * len(ids)
    assert max(differences) < ROUNDING
    assert np.mean(differences) < MEAN_ROUNDING


def test_they_are_what_the_library_computes(
    client: openai.OpenAI, smol: ServeProcess, ids: list[int]
) -> None:
    """All logits at once, by llama-cpp-python's own class, with numpy's softmax."""
    load_backends()
    model = llama_cpp.Llama(str(smollm2()), n_ctx=256, logits_all=True, flash_attn=True, verbose=False)
    model.eval(ids)
    rows = np.array(model.scores[: len(ids) - 1], np.float64)
    wanted = rows[range(len(ids) - 1), ids[1:]] - np.log(np.exp(rows).sum(axis=1))
    got = np.array(scored(client, smol, ids).choices[0].logprobs.token_logprobs[1:])
    print(
        f"rounding up to {np.abs(got - wanted).max():.3f} nats, {np.abs(got - wanted).mean():.4f} on average"
    )
    assert np.abs(got - wanted).max() < ROUNDING
    assert np.abs(got - wanted).mean() < MEAN_ROUNDING


def test_the_lists_are_of_the_text(client: openai.OpenAI, smol: ServeProcess, ids: list[int]) -> None:
    for prompt in (TEXT, ids):
        answer = scored(client, smol, prompt, max_tokens=3)
        choice = answer.choices[0]
        logprobs = choice.logprobs
        assert choice.text.startswith(TEXT)
        assert len(logprobs.tokens) == len(ids) + 3
        places = [*logprobs.text_offset, len(choice.text)]
        for token, start, end in zip(logprobs.tokens, places, places[1:], strict=False):
            assert "\ufffd" in token or choice.text[start:end] == token
        assert logprobs.top_logprobs[0] is None
        assert all(1 <= len(top) <= 2 for top in logprobs.top_logprobs[1:])
        assert answer.usage.prompt_tokens == len(ids)
        assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_a_stream_says_the_same(client: openai.OpenAI, smol: ServeProcess, max_tokens: int) -> None:
    prompts = [TEXT, "Two"]
    whole = scored(client, smol, prompts, max_tokens=max_tokens, n=2)
    texts: dict[int, str] = {}
    lists: dict[int, list[Any]] = {}
    for chunk in scored(client, smol, prompts, max_tokens=max_tokens, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.logprobs is not None:
                entries = zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
                lists.setdefault(choice.index, []).extend(entries)
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        tokens, places = choice.logprobs.tokens, choice.logprobs.text_offset
        assert lists[choice.index] == list(zip(tokens, places, strict=True))
        assert choice.finish_reason == "length"


def harness_scores(document: dict[str, Any], context_lengths: list[int]) -> list[tuple[float, bool]]:
    """As lm-evaluation-harness' `local-completions` reads an answer."""
    results = []
    choices = sorted(document["choices"], key=lambda choice: choice["index"])
    for choice, length in zip(choices, context_lengths, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        greedy = all(one == max(top.values()) for one, top in zip(logprobs, tops, strict=True))
        results.append((sum(logprobs), greedy))
    return results


def test_a_harness_tells_the_right_continuation(smol: ServeProcess) -> None:
    context = token_ids(smol, "The capital of France is")
    continuations = [token_ids(smol, f" {city}") for city in ("Paris", "Rome", "a banana")]
    asked = {
        "model": smol.name, "prompt": [context + one for one in continuations],
        "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234,
    }  # fmt: skip
    answer = httpx.post(
        f"{smol.base}/v1/completions",
        json=asked,
        headers={"authorization": f"Bearer {KEY}"},
        timeout=60,
        trust_env=False,
    )
    (paris, greedy), (rome, _), (banana, least) = harness_scores(answer.json(), [len(context)] * 3)
    assert banana < rome < paris < 0
    assert greedy
    assert not least
    assert math.exp(paris) > 0.2


def test_tokens_get_nothing_before_them_and_a_text_does(
    tiny_model: tuple[ModelConfig, Path], tmp_path: Path
) -> None:
    """Of a model that begins its texts with a token of its own."""
    with (
        serving(*tiny_model, tmp_path) as server,
        openai.OpenAI(base_url=f"{server.base}/v1", api_key=KEY, max_retries=0) as client,
    ):
        text = scored(client, server, "the of").choices[0]
        assert text.text == "the of"
        assert text.logprobs.tokens[0] == "<s>"
        assert text.logprobs.text_offset[:2] == [0, 0]
        by_ids = scored(client, server, [30, 31, 32])
        assert len(by_ids.choices[0].logprobs.tokens) == by_ids.usage.prompt_tokens == 3
        usage = client.completions.create(model=server.name, prompt=[30, 31, 32], max_tokens=1).usage
        assert usage is not None
        assert usage.prompt_tokens == 3


def test_a_prompt_too_long_gets_the_numbers(client: openai.OpenAI, smol: ServeProcess) -> None:
    for prompt, numbers in (([28] * 2049, "2049 tokens"), ("word " * 20_000, "100000 characters")):
        with pytest.raises(openai.BadRequestError, match=numbers) as refused:
            scored(client, smol, prompt)
        assert (refused.value.param, refused.value.code) == ("prompt", "context_length_exceeded")
    with pytest.raises(openai.BadRequestError, match="262144"):
        scored(client, smol, [[28] * 2000] * 7, logprobs=20)
    full = scored(client, smol, [28] * 2048, logprobs=20).choices[0].logprobs
    assert len(full.token_logprobs) == 2048


async def test_beside_a_running_stream_which_goes_on(
    async_client: openai.AsyncOpenAI, smol: ServeProcess
) -> None:
    stream = await async_client.completions.create(
        model=smol.name,
        prompt="Once upon a time",
        stream=True,
        max_tokens=1000,
        extra_body={"ignore_eos": True},
    )
    events = aiter(stream)
    await anext(events)
    scoring = asyncio.create_task(
        async_client.completions.create(
            model=smol.name, prompt=[list(range(100, 500))] * 2, echo=True, logprobs=5, max_tokens=0
        )
    )
    beside = 0
    while not scoring.done():
        await anext(events)
        beside += 1
    choices = (await scoring).choices
    await stream.close()
    assert choices[0].logprobs is not None
    assert len(choices[0].logprobs.tokens or []) == 400
    print(f"{beside} events of the stream came while 800 tokens were scored")
    assert beside >= 10


async def test_leaving_frees_what_was_scored(async_client: openai.AsyncOpenAI, smol: ServeProcess) -> None:
    scoring = asyncio.create_task(
        async_client.completions.create(
            model=smol.name, prompt=[list(range(2000))] * 4, echo=True, logprobs=1, max_tokens=1
        )
    )
    async with asyncio.timeout(20):
        while smol.metric("slm_runtime_sequences_running") == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    scoring.cancel()
    async with asyncio.timeout(20):
        while smol.metric("slm_runtime_sequences_running") > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert smol.metric("slm_runtime_requests_waiting") == 0
