"""A request that generates nothing: it is through when the engine has taken in its inputs."""

from abc import ABC, abstractmethod

from slm_runtime.engine.messages import Embedded, Scored
from slm_runtime.engine.protocol import Rows
from slm_runtime.scheduler.plan import Sequence


class Reading(ABC):
    """One sequence an input that has something to read; its choice is the input's place."""

    def __init__(self, identity: int, sequences: list[Sequence]) -> None:
        self.id = identity
        self.sequences = sequences
        self._open = len(sequences)

    @property
    def open(self) -> bool:
        return self._open > 0

    @abstractmethod
    def add(self, sequence: Sequence, position: int, rows: Rows) -> None:
        """What the engine gave for the sequence's tokens from `position` on: a row each.

        A sequence that gave way to others begins anew, at position 0.
        """

    def end(self) -> None:
        """One more input is through."""
        self._open -= 1

    @abstractmethod
    def result(self) -> Embedded | Scored:
        """The answer, once all inputs are through."""
