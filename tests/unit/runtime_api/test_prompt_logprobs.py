"""`echo` with `logprobs`, and `max_tokens: 0`: what evaluation harnesses live on."""

import asyncio
import socket
from typing import Any

import msgspec
import openai
import pytest

from slm_contract.config import PromptConfig, PromptParameters
from slm_runtime.engine.client import EngineBusy, RequestRefused
from tests.unit.runtime_api.scripted import MODEL, Running, Script, post, running, until

ANSWER = ["Hello", ", ", "world", "!"]


async def streamed(client: openai.AsyncOpenAI, **asked: Any) -> dict[int, dict[str, Any]]:
    """By choice: its text, its logprobs' four lists and its reason, put together from the chunks."""
    choices: dict[int, dict[str, Any]] = {}
    async for chunk in await client.completions.create(model=MODEL, stream=True, **asked):
        for choice in chunk.choices:
            whole = choices.setdefault(choice.index, {"text": "", "logprobs": None})
            whole["text"] += choice.text
            whole["finish_reason"] = choice.finish_reason
            if choice.logprobs is not None:
                lists = choice.logprobs.model_dump()
                before = whole["logprobs"] or {name: [] for name in lists}
                whole["logprobs"] = {name: before[name] + lists[name] for name in lists}
    return choices


async def answered(client: openai.AsyncOpenAI, **asked: Any) -> dict[int, dict[str, Any]]:
    answer = await client.completions.create(model=MODEL, **asked)
    return {
        choice.index: choice.model_dump(include={"text", "logprobs", "finish_reason"})
        for choice in answer.choices
    }


async def test_the_prompt_s_come_first_and_the_first_has_none(
    client: openai.AsyncOpenAI, api: Running
) -> None:
    (choice,) = (await answered(client, prompt=list(b"Say"), echo=True, logprobs=1)).values()
    assert choice["text"] == "SayHello, world!"
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["S", "a", "y", *ANSWER]
    assert logprobs["token_logprobs"] == [None, -1, -2, -0.5, -0.5, -0.5, -0.5]
    assert logprobs["top_logprobs"][:3] == [None, {"a": -1}, {"y": -2}]
    assert logprobs["text_offset"] == [0, 1, 2, 3, 8, 10, 15]
    assert [(score.inputs, score.top, score.add_special) for score in api.engine.scores] == [
        ([list(b"Say")], 1, False)
    ]


async def test_what_the_engine_puts_before_a_text_has_no_width(client: openai.AsyncOpenAI) -> None:
    (choice,) = (await answered(client, prompt="sö<s>", echo=True, logprobs=0)).values()
    assert choice["logprobs"]["tokens"] == ["<s>", "s", "\ufffd", "\ufffd", "<", "s", ">", *ANSWER]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 1, 2, 3, 4, 5, 10, 12, 17]
    assert choice["logprobs"]["top_logprobs"][:2] == [None, {"s": -1.0}]
    (empty,) = (await answered(client, prompt="", echo=True, logprobs=0, max_tokens=0)).values()
    assert empty["logprobs"] == {
        "tokens": ["<s>"],
        "token_logprobs": [None],
        "top_logprobs": [None],
        "text_offset": [0],
    }


@pytest.mark.parametrize("asked", [{}, {"logprobs": 2}, {"logprobs": 2, "max_tokens": 0}, {"max_tokens": 0}])
@pytest.mark.parametrize("prompt", ["Once", ["a", "bc"], [list(b"abc"), list(b"d")]])
async def test_a_stream_says_the_same(client: openai.AsyncOpenAI, prompt: Any, asked: dict[str, Any]) -> None:
    asked = {"prompt": prompt, "echo": True, "n": 2, **asked}
    assert await streamed(client, **asked) == await answered(client, **asked)


async def test_no_tokens_of_an_answer(client: openai.AsyncOpenAI, api: Running) -> None:
    answer = await client.completions.create(model=MODEL, prompt=["ab", "cd"], n=2, max_tokens=0, echo=True)
    assert [(c.index, c.text, c.finish_reason, c.logprobs) for c in answer.choices] == [
        (index, text, "length", None) for index, text in enumerate(["ab", "ab", "cd", "cd"])
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 0)
    assert api.engine.requests == []
    (plain,) = (await answered(client, prompt="ab", max_tokens=0, logprobs=1)).values()
    assert plain["text"] == ""
    assert plain["logprobs"]["tokens"] == []


async def test_the_deployment_s_limit_is_for_requests_that_name_none() -> None:
    prompt = PromptConfig(parameters=PromptParameters(max_tokens=3))
    async with (
        running(prompt=prompt) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        await client.completions.create(model=MODEL, prompt="x", max_tokens=0)
        assert api.engine.requests == []
        await client.completions.create(model=MODEL, prompt="x")
        assert [request.max_tokens for request in api.engine.requests] == [3]


async def test_best_of_has_the_prompt_s_too(client: openai.AsyncOpenAI) -> None:
    choices = await answered(client, prompt=["ab", "c"], best_of=3, n=1, echo=True, logprobs=1)
    assert [choice["logprobs"]["tokens"] for choice in choices.values()] == [
        ["<s>", "a", "b", *ANSWER],
        ["<s>", "c", *ANSWER],
    ]


async def test_nothing_is_scored_that_isn_t_told(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.completions.create(model=MODEL, prompt="x", logprobs=1)
    await client.completions.create(model=MODEL, prompt="x", echo=True)
    assert api.engine.scores == []


async def test_what_the_scoring_computed_isn_t_called_spared(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt="x", echo=True, logprobs=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_how_much_one_answer_can_hold_is_shared_by_its_choices(
    client: openai.AsyncOpenAI, api: Running
) -> None:
    await client.completions.create(model=MODEL, prompt="x", echo=True, logprobs=1, n=4)
    await client.completions.create(model=MODEL, prompt="x", max_tokens=0, n=4)
    assert [score.most for score in api.engine.scores] == [65_536, 262_144]


async def test_refusals_are_the_engine_s_sentences(client: openai.AsyncOpenAI, api: Running) -> None:
    api.engine.script = Script(
        refuse=RequestRefused("9 tokens, 8 fit", param="prompt", code="context_length_exceeded")
    )
    with pytest.raises(openai.BadRequestError, match="9 tokens, 8 fit") as refused:
        await client.completions.create(model=MODEL, prompt="x", echo=True, logprobs=1, stream=True)
    assert (refused.value.param, refused.value.code) == ("prompt", "context_length_exceeded")
    api.engine.script = Script(refuse=EngineBusy("full", retry_after=2, waiting=9))
    with pytest.raises(openai.RateLimitError, match="full"):
        await client.completions.create(model=MODEL, prompt="x", max_tokens=0)


async def test_a_client_that_goes_ends_the_scoring(api: Running) -> None:
    api.engine.script = Script(gate=asyncio.Event())
    asked = {"model": MODEL, "prompt": "x", "echo": True, "logprobs": 1}
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        await asyncio.get_running_loop().sock_sendall(connection, post("/v1/completions", asked))
        await until(lambda: bool(api.engine.scores))
    await until(lambda: api.engine.scores_left == 1)
    assert api.engine.requests == []


async def test_the_numbers_are_json(api: Running, http: Any) -> None:
    asked = {"model": MODEL, "prompt": "ab", "echo": True, "logprobs": 1, "max_tokens": 0}
    answer = msgspec.json.decode((await http.post("/v1/completions", json=asked)).content)
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -1.0, -2.0]
