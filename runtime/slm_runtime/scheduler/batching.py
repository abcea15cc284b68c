"""What goes into an encoder's next step: inputs of whichever requests, each of them whole.

Nothing is padded, so inputs of one step needn't be of like length: they are taken as fairness has them, up to so
many tokens that a step is worth its while, and short enough that nobody waits long for the next one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from slm_runtime.engine.protocol import EncoderCapabilities, Tokens
from slm_runtime.scheduler.waiting import FairQueue

_INPUT_BYTES: Final = 512
_TOKEN_BYTES: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """One text, or pair of texts, of one request."""

    request: int
    place: int
    """Among the request's inputs."""
    client: str
    tokens: Tokens


class Batcher:
    """Every batch that `take` gives is answered by one `done`."""

    def __init__(self, capabilities: EncoderCapabilities) -> None:
        self._capabilities = capabilities
        self._waiting: FairQueue[Input] = FairQueue()

    @property
    def waiting_bytes(self) -> int:
        """About what the inputs that wait take of memory."""
        return sum(_INPUT_BYTES + _TOKEN_BYTES * len(each.tokens) for each in self._waiting)

    def put(self, one: Input) -> None:
        self._waiting.push(one.client, one, one.request)

    def remove(self, unwanted: Callable[[Input], bool]) -> None:
        self._waiting.remove(unwanted)

    def take(self) -> list[Input]:
        """The next step's inputs; a long one goes alone."""
        batch: list[Input] = []
        room = self._capabilities.step_tokens
        while len(batch) < self._capabilities.inputs and (head := self._waiting.peek()) is not None:
            name, one = head
            if batch and len(one.tokens) > room:
                break
            batch.append(self._waiting.pop(name))
            self._waiting.charge(name, len(one.tokens))
            room -= len(one.tokens)
        return batch

    def done(self, batch: list[Input]) -> None:
        """The step was carried out."""
        for one in batch:
            self._waiting.finish(one.client)
