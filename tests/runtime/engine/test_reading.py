"""Embeddings and scores, against a real process with the deterministic engine in it."""

import asyncio
import math
import time

import numpy as np
import pytest

from slm_runtime.engine.client import DeadlineExceeded, EngineUnavailable, RequestRefused
from slm_runtime.engine.messages import EmbedRequest, Score, ScoreRequest
from slm_runtime.engine.process import is_heavy
from tests.runtime.engine.supervised import answer, ask, engine, expected, text_of
from tests.unit.runtime_engine.playing import VOCABULARY, Letters, next_token


async def test_embeddings_come_whole_and_beside_running_streams():
    async with engine(parallel=3, context_length=20000) as supervisor:
        await supervisor.ready()
        stream = await supervisor.generate(ask("stream", max_tokens=None))
        await anext(stream)
        inputs = [[3, 4, 5], list(range(3, 60)), [9]]
        request = EmbedRequest(inputs=inputs, normalize=False)
        embedded = await supervisor.embed(request)
        assert embedded.prompt_tokens == 64
        for vector, tokens in zip(embedded.vectors, ([1, *tokens] for tokens in inputs), strict=True):
            assert np.frombuffer(vector, "<f4") == pytest.approx(
                [sum(tokens) / len(tokens), (len(tokens) - 1) / 2]
            )
        again = await supervisor.embed(EmbedRequest(inputs=inputs))
        assert np.linalg.norm(np.frombuffer(again.vectors[1], "<f4")) == pytest.approx(1)
        with pytest.raises(DeadlineExceeded):
            await supervisor.embed(EmbedRequest(inputs=inputs, deadline=time.monotonic() - 1))
        with pytest.raises(RequestRefused, match="20002") as refused:
            await supervisor.embed(EmbedRequest(inputs=[[3] * 20001]))
        assert refused.value.code == "context_length_exceeded"
        assert not stream.ended


def likely(held, token):
    """What the played engine thinks of a token: one is e times as likely as each of the others."""
    return (token == next_token(held)) - math.log(math.e + VOCABULARY - 1)


async def test_scores_come_whole_and_beside_running_streams():
    async with engine(parallel=3, context_length=20000) as supervisor:
        await supervisor.ready()
        stream = await supervisor.generate(ask("stream", max_tokens=None))
        await anext(stream)
        inputs = [[3, 4, 5], list(range(3, 60)), [9]]
        scored = await supervisor.score(ScoreRequest(inputs=inputs, top=1, add_special=False))
        for one, tokens in zip(scored.inputs, inputs, strict=True):
            assert one.first == Letters().piece(tokens[0], special=True)
            assert [entry.chosen.token for entry in one.rest] == tokens[1:]
            for place, entry in enumerate(one.rest, 1):
                assert entry.chosen.logprob == pytest.approx(likely(tokens[:place], tokens[place]), abs=1e-5)
                assert [top.token for top in entry.top] == [next_token(tokens[:place])]
        begun = await supervisor.score(ScoreRequest(inputs=["ab", ""]))
        assert [len(one.rest) for one in begun.inputs] == [2, 0]
        assert {one.first for one in begun.inputs} == {b"<1>"}
        assert not stream.ended
        await anext(stream)


async def test_scores_that_can_t_be_are_refused_with_the_numbers():
    async with engine(context_length=100) as supervisor:
        await supervisor.ready()
        for request, code, words in (
            (ScoreRequest(inputs=["a" * 100]), "context_length_exceeded", "101 tokens.* 100"),
            (ScoreRequest(inputs=["ok", "a" * 4000]), "context_length_exceeded", "4000 characters"),
            (ScoreRequest(inputs=[[3, 77]]), "invalid", "77"),
            (ScoreRequest(inputs=["a" * 90, "b" * 7], top=4, most=400), "invalid", "99 tokens.* 495.* 400"),
        ):
            with pytest.raises(RequestRefused, match=words) as refused:
                await supervisor.score(request)
            assert (refused.value.param, refused.value.code) == ("prompt", code)
        with pytest.raises(RequestRefused, match="101"):
            await supervisor.score(ScoreRequest(inputs=["a"], top=101))
        with pytest.raises(DeadlineExceeded):
            await supervisor.score(ScoreRequest(inputs=["a"], deadline=time.monotonic() - 1))
        assert len((await supervisor.score(ScoreRequest(inputs=["a" * 99]))).inputs[0].rest) == 99


async def test_a_score_whose_client_goes_is_never_finished():
    async with engine(context_length=100_000) as supervisor:
        await supervisor.ready()
        slowly = asyncio.create_task(supervisor.score(ScoreRequest(inputs=["x" * 60_000])))
        while supervisor.stats.running == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        slowly.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slowly
        async with asyncio.timeout(30):
            while supervisor.stats.running or supervisor.stats.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert supervisor.stats.kv_cells_used < 60_000


async def test_a_crash_fails_what_is_scored():
    async with engine() as supervisor:
        await supervisor.ready()
        with pytest.raises(EngineUnavailable, match="SIGKILL"):
            await supervisor.score(ScoreRequest(inputs=[[3, 64, 3]]))
        assert text_of(await answer(supervisor, ask())) == expected("hello", 8)


async def test_deaths_with_scores_or_embeddings_answered_between_are_not_in_a_row():
    async with engine() as supervisor:
        await supervisor.ready()
        for served in (
            lambda: supervisor.score(ScoreRequest(inputs=["a"])),
            lambda: supervisor.embed(EmbedRequest(inputs=["a"])),
        ) * 2:
            with pytest.raises(EngineUnavailable, match="SIGKILL"):
                await supervisor.score(ScoreRequest(inputs=[[3, 64, 3]]))
            await served()
        assert supervisor.restarts == 4


def test_long_texts_are_scored_beside_others_not_ahead_of_them():
    assert is_heavy(Score(1, ScoreRequest(inputs=["x" * 40_000] * 2)))
    assert not is_heavy(Score(1, ScoreRequest(inputs=["x"])))
