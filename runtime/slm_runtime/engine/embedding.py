"""One embedding request in the engine process: the mean of each input's hidden states, summed up as they come."""

import numpy as np
from numpy.typing import NDArray

from slm_runtime.engine.messages import Embedded
from slm_runtime.engine.prepare import PreparedEmbedding
from slm_runtime.engine.protocol import Rows
from slm_runtime.scheduler.plan import Sequence, Wanted


class EmbeddingState:
    """Choice i of it is input i."""

    def __init__(self, prepared: PreparedEmbedding) -> None:
        self.id = prepared.id
        self.sequences = [
            Sequence(
                request=prepared.id,
                choice=place,
                client=prepared.request.client,
                tokens=tokens,
                limit=len(tokens),
                wanted=Wanted.HIDDEN_STATES,
            )
            for place, tokens in enumerate(prepared.inputs)
        ]
        self._normalize = prepared.request.normalize
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._open = len(self.sequences)

    @property
    def open(self) -> bool:
        return self._open > 0

    def add(self, sequence: Sequence, position: int, rows: Rows) -> None:
        """Hidden states of the sequence's tokens from `position` on: shape (tokens, embedding length).

        A sequence that gave way to others begins anew, at position 0.
        """
        part = rows.sum(axis=0, dtype=np.float64)
        self._sums[sequence.choice] = part if position == 0 else self._sums[sequence.choice] + part

    def end(self) -> None:
        """One more input is through."""
        self._open -= 1

    def result(self) -> Embedded:
        vectors: list[list[float]] = []
        for sequence in self.sequences:
            vector = self._sums[sequence.choice] / len(sequence.tokens)
            length = float(np.linalg.norm(vector))
            if self._normalize and length > 0:
                vector = vector / length
            vectors.append(vector.tolist())
        return Embedded(self.id, vectors, sum(len(sequence.tokens) for sequence in self.sequences))
