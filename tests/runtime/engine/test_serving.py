"""The whole engine process on real models: batching, structured output, crashes."""

import asyncio
import contextlib
import json
import os
import re
import signal

import numpy as np
import pytest

from slm_runtime.engine.client import RequestRefused
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Constraint,
    Delta,
    EmbedRequest,
    GenerateRequest,
    RequestFinished,
    Sampling,
)
from slm_runtime.engine.supervisor import EngineSupervisor

pytestmark = pytest.mark.runtime

GREEDY = Sampling(temperature=0)


@contextlib.asynccontextmanager
async def engine(path, **fields):
    supervisor = EngineSupervisor(
        EngineConfig(**{"model_path": str(path), "context_length": 512, "parallel": 4, **fields}),
        backoff=0.01,
    )
    await supervisor.start()
    try:
        await supervisor.ready()
        yield supervisor
    finally:
        await supervisor.close()


def chat(question, **fields):
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return GenerateRequest(prompt=[prompt], **{"sampling": GREEDY, "max_tokens": 24, **fields})


async def answer(supervisor, request):
    async with await supervisor.generate(request) as generation:
        return [event async for event in generation]


def text_of(events, choice=0):
    return "".join(event.text for event in events if isinstance(event, Delta) and event.choice == choice)


def tokens_of(events):
    return [token for event in events if isinstance(event, Delta) for token in event.tokens]


def tops_of(events):
    """For each token, the logprobs of the best and the second best, in nats."""
    entries = [entry for event in events if isinstance(event, Delta) for entry in event.logprobs or []]
    return [(entry.top[0].logprob, entry.top[1].logprob) for entry in entries]


async def test_it_knows_the_capital_of_france(small):
    async with engine(small) as supervisor:
        events = await answer(supervisor, chat("What is the capital of France?"))
    assert "Paris" in text_of(events)
    *_, choice, finished = events
    assert isinstance(choice, ChoiceFinished)
    assert choice.reason == "stop"
    assert isinstance(finished, RequestFinished)
    assert finished.usage.completion_tokens == choice.completion_tokens


async def test_in_a_batch_each_gets_the_text_it_gets_alone(small):
    questions = [f"Tell me something about the number {number}." for number in range(8)]
    requests = [chat(question, logprobs=2) for question in questions]
    async with engine(small) as supervisor:
        together = await asyncio.gather(*[answer(supervisor, request) for request in requests])
        assert supervisor.stats.cached_tokens > 0
    async with engine(small, parallel=1) as supervisor:
        alone = [await answer(supervisor, request) for request in requests]
    differences, rounding = [], []
    for batch, single in zip(together, alone, strict=True):
        ours, theirs = tokens_of(batch), tokens_of(single)
        same = next((place for place, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y), None)
        pairs = list(zip(tops_of(batch), tops_of(single), strict=False))[:same]
        rounding += [
            abs(x - y) for ours_top, theirs_top in pairs for x, y in zip(ours_top, theirs_top, strict=True)
        ]
        if same is None:
            assert ours == theirs
        else:
            differences.append(tops_of(single)[same][0] - tops_of(single)[same][1])
    # A batch may round differently: what differs first must have been a tie, within what rounding was seen to do to each.
    print(f"rounding up to {max(rounding):.3f} nats, first differences where the best led by {differences}")
    assert all(lead <= 2 * max(rounding) for lead in differences)
    assert max(rounding) < 1, "more than rounding: a sequence has read what isn't its own"


async def test_every_stream_is_valid_text(tiny):
    """A random model makes broken UTF-8; what is shown is text all the same, and the tokens say the rest."""
    async with engine(tiny, parallel=8) as supervisor:
        request = chat("hello", sampling=Sampling(seed=1), ignore_eos=True, max_tokens=200, n=8)
        events = await answer(supervisor, request)
        for choice in range(8):
            deltas = [e for e in events if isinstance(e, Delta) and e.choice == choice]
            assert sum(len(delta.tokens) for delta in deltas) == 200
            "".join(delta.text for delta in deltas).encode("utf-8", errors="strict")


async def test_a_seed_repeats_whatever_the_neighbours_do(tiny):
    async with engine(tiny) as supervisor:
        request = chat("hello", sampling=Sampling(seed=42, top_k=40), max_tokens=40, ignore_eos=True)
        alone = await answer(supervisor, request)
        first, *_ = await asyncio.gather(
            answer(supervisor, request),
            *[answer(supervisor, chat(f"other {n}", sampling=Sampling(seed=n))) for n in range(3)],
        )
    assert tokens_of(first)[:10] == tokens_of(alone)[:10]


@pytest.mark.parametrize("model", ["tiny", "small"])
async def test_structured_output_matches_whatever_the_model_wants(model, request):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "people": {"type": "integer", "maximum": 99},
        },
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    async with engine(request.getfixturevalue(model)) as supervisor:
        hot = Sampling(temperature=1.5, seed=3)
        as_json, as_pattern, as_lark, as_gbnf = await asyncio.gather(
            answer(
                supervisor,
                chat(
                    "A city?",
                    sampling=hot,
                    max_tokens=400,
                    constraint=Constraint("json_schema", json.dumps(schema)),
                ),
            ),
            answer(
                supervisor, chat("When?", sampling=hot, constraint=Constraint("regex", "[0-9]{4}-[0-9]{2}"))
            ),
            answer(
                supervisor, chat("Yes?", sampling=hot, constraint=Constraint("lark", 'start: "yes" | "no"'))
            ),
            answer(
                supervisor, chat("Yes?", sampling=hot, constraint=Constraint("gbnf", 'root ::= "yes" | "no"'))
            ),
        )
        with pytest.raises(RequestRefused):
            await supervisor.generate(chat("?", constraint=Constraint("gbnf", "root ::= (")))
    document = json.loads(text_of(as_json))
    assert set(document) == {"city", "people"}
    assert re.fullmatch("[0-9]{4}-[0-9]{2}", text_of(as_pattern))
    assert text_of(as_lark) in {"yes", "no"}
    assert text_of(as_gbnf) in {"yes", "no"}
    for events in (as_json, as_pattern, as_lark, as_gbnf):
        assert [e.reason for e in events if isinstance(e, ChoiceFinished)] == ["stop"]


async def test_logprobs_are_those_of_a_distribution(small):
    async with engine(small) as supervisor:
        events = await answer(supervisor, chat("Hello!", logprobs=5, max_tokens=5))
    for event in events:
        for entry in event.logprobs or [] if isinstance(event, Delta) else []:
            tops = [top.logprob for top in entry.top]
            assert entry.chosen == entry.top[0]
            assert tops == sorted(tops, reverse=True)
            assert np.exp(tops).sum() <= 1 + 1e-6


async def test_what_means_nearly_the_same_is_embedded_nearby(small):
    texts = [
        "The cat sleeps on the sofa.",
        "A kitten naps on the couch.",
        "Interest rates rose by two percent.",
    ]
    async with engine(small) as supervisor:
        embedded = await supervisor.embed(EmbedRequest(inputs=texts))
    cat, kitten, rates = (np.frombuffer(vector, "<f4") for vector in embedded.vectors)
    assert cat @ kitten > max(cat @ rates, kitten @ rates)


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_crash_fails_the_batch_and_what_comes_next_is_served(small, deadly):
    async with engine(small, parallel=2) as supervisor:
        running = [
            await supervisor.generate(chat(f"Count from {n}.", ignore_eos=True, max_tokens=400))
            for n in range(2)
        ]
        waiting = asyncio.create_task(answer(supervisor, chat("What is the capital of France?")))
        for generation in running:
            await anext(generation)
        os.kill(supervisor.pid, deadly)
        for generation in running:
            events = [event async for event in generation]
            assert [e.reason for e in events if isinstance(e, ChoiceFinished)] == ["error"]
            assert deadly.name in events[-1].message
        # It was there, and may be what ended the process: whoever sent it decides whether to send it again.
        waited = [e.reason for e in await waiting if isinstance(e, ChoiceFinished)]
        assert waited == ["unavailable"]
        assert "Paris" in text_of(await answer(supervisor, chat("What is the capital of France?")))
        assert supervisor.restarts == 1


async def test_a_full_context_ends_with_length(tiny):
    async with engine(tiny, context_length=128) as supervisor:
        events = await answer(supervisor, chat("hello", ignore_eos=True, max_tokens=None))
    *_, choice, finished = events
    assert choice.reason == "length"
    assert finished.usage.prompt_tokens + finished.usage.completion_tokens == 128


async def test_load_failures_are_final_and_say_why(tmp_path):
    (tmp_path / "wrong.gguf").write_bytes(b"GGUF and then nothing")
    supervisor = EngineSupervisor(EngineConfig(model_path=str(tmp_path / "wrong.gguf")))
    await supervisor.start()
    try:
        assert "wrong.gguf" in await supervisor.failed()
    finally:
        await supervisor.close()


async def test_where_requests_share_less_memory_than_they_may_take_each_still_gets_its_whole_answer(tiny):
    """Four may take 512 positions each; there are 768. Who has to give way goes on where it was."""
    asked = [
        GenerateRequest(prompt=[f"tell {n}"], sampling=GREEDY, max_tokens=300, ignore_eos=True)
        for n in range(4)
    ]
    async with engine(tiny, threads=1) as roomy:
        expected = [tokens_of(await answer(roomy, one)) for one in asked]
    async with engine(tiny, threads=1, kv_cells=768) as bounded:
        events = await asyncio.gather(*(answer(bounded, one) for one in asked))
        assert bounded.stats.preemptions > 0
    assert [tokens_of(one) for one in events] == expected
