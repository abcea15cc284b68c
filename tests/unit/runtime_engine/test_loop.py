"""The step loop on the deterministic engine: what it sends for which requests."""

from collections.abc import Sequence

import pytest

from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import Embedded, EmbedRequest, Message
from slm_runtime.engine.prepare import PreparedEmbedding
from slm_runtime.engine.protocol import Capabilities
from slm_runtime.scheduler.plan import tokens_of
from tests.unit.runtime_engine.playing import PlayedEngine

CAPABILITIES = Capabilities(
    context_length=200, rows=4, sequences=12, step_tokens=64, cells=800, embedding_tokens=16
)


class World:
    """A loop, and all that it sent. `refusals` says of each step whether it finds no cells."""

    def __init__(self, refusals: Sequence[bool] = ()) -> None:
        self.sent: list[Message] = []
        coming = iter(refusals)
        self.engine = PlayedEngine(CAPABILITIES, refuse=lambda: next(coming, False))
        self.loop = StepLoop(self.engine, self.sent.append, queue_limit=8)

    def drain(self, steps: int = 500) -> None:
        for _ in range(steps):
            if self.loop.idle:
                return
            self.loop.step()
        raise AssertionError("it doesn't come to an end")


def test_an_embedding_that_gave_way_is_made_anew():
    world = World([False, False, True, True])
    inputs = [tokens_of([5, *range(3, 50)]), tokens_of([7, *range(3, 40)])]
    world.loop.embed(PreparedEmbedding(1, EmbedRequest(inputs=[], normalize=False), inputs))
    world.drain()
    assert world.loop._scheduler.preemptions == 1
    (embedded,) = [message for message in world.sent if isinstance(message, Embedded)]
    for vector, tokens in zip(embedded.vectors, inputs, strict=True):
        assert vector == pytest.approx([sum(tokens) / len(tokens), (len(tokens) - 1) / 2])
