"""The loop of an encoder, on one whose rows tell what was in them."""

import numpy as np
import pytest

from slm_runtime.engine.encoding import EncoderLoop
from slm_runtime.engine.messages import Busy, Embedded, EmbedRequest, Ranked, RankRequest, StepOutput
from slm_runtime.engine.prepare import PreparedEmbedding, PreparedRanking
from slm_runtime.engine.protocol import EncoderCapabilities
from slm_runtime.scheduler.plan import tokens_of
from tests.unit.runtime_engine.playing import Letters


class PlayedEncoder:
    """A row is an input's sum and its length."""

    capabilities = EncoderCapabilities(context_length=100, inputs=4, step_tokens=32, ranks=False)

    def __init__(self):
        self.vocabulary = Letters()
        self.steps = []

    def encode(self, inputs):
        self.steps.append([list(tokens) for tokens in inputs])
        return np.array([[sum(tokens), len(tokens)] for tokens in inputs], np.float32)

    def close(self):
        return


@pytest.fixture
def world():
    encoder, sent = PlayedEncoder(), []
    return encoder, EncoderLoop(encoder, sent.append, queue_limit=2), sent


def embedding(identity, *inputs, **fields):
    return PreparedEmbedding(
        identity, EmbedRequest(inputs=[], **fields), [tokens_of(each) for each in inputs]
    )


def drain(loop):
    while not loop.idle:
        loop.step()


def answers(sent):
    return [message for message in sent if not isinstance(message, StepOutput)]


def test_requests_share_steps_and_get_their_own_rows(world):
    encoder, loop, sent = world
    loop.take(embedding(1, [3, 4], [5], normalize=False))
    loop.take(PreparedRanking(2, RankRequest(queries=[], documents=[]), [tokens_of([6, 7, 8])]))
    drain(loop)
    assert [len(step) for step in encoder.steps] == [3]
    embedded, ranked = sorted(answers(sent), key=lambda message: message.id)
    assert isinstance(embedded, Embedded)
    assert isinstance(ranked, Ranked)
    assert [np.frombuffer(vector, "<f4").tolist() for vector in embedded.vectors] == [[7, 2], [5, 1]]
    assert embedded.prompt_tokens == 3
    assert (ranked.scores, ranked.prompt_tokens) == ([21], 3)
    assert sent[-1].stats.running == sent[-1].stats.waiting == 0


def test_a_vector_has_unit_length_unless_there_is_none(world):
    _, loop, sent = world
    loop.take(embedding(1, [4, 4]))
    drain(loop)
    assert np.linalg.norm(np.frombuffer(answers(sent)[0].vectors[0], "<f4")) == pytest.approx(1)


def test_a_full_queue_says_when_to_come_back_and_begun_requests_are_not_in_it(world):
    _, loop, sent = world
    for identity in range(3):
        loop.take(embedding(identity, *[[1] * 30] * 3))
    assert [message.id for message in answers(sent)] == [2]
    assert isinstance(answers(sent)[0], Busy)
    loop.step()
    loop.take(embedding(3, [1]))
    drain(loop)
    assert {message.id for message in answers(sent) if isinstance(message, Embedded)} == {0, 1, 3}


def test_what_is_cancelled_is_told_nothing_and_takes_no_step(world):
    encoder, loop, sent = world
    loop.take(embedding(1, *[[1] * 30] * 50))
    loop.step()
    loop.cancel(1)
    assert loop.idle
    assert sent[-1].stats.running == 0
    loop.take(embedding(2, [1]))
    drain(loop)
    assert [message.id for message in answers(sent)] == [2]
    assert len(encoder.steps) == 2
