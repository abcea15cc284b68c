"""One embedding request in the engine process: the mean of each input's hidden states, summed up as they come."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from slm_runtime.engine.messages import Embedded
from slm_runtime.engine.prepare import PreparedEmbedding
from slm_runtime.engine.protocol import Rows
from slm_runtime.engine.reading import Reading
from slm_runtime.scheduler.plan import Sequence, Wanted


class EmbeddingState(Reading):
    def __init__(self, prepared: PreparedEmbedding) -> None:
        sequences = [
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
        super().__init__(prepared.id, sequences)
        self._normalize = prepared.request.normalize
        self._sums: dict[int, NDArray[np.float64]] = {}

    @override
    def add(self, sequence: Sequence, position: int, rows: Rows) -> None:
        """Hidden states: shape (tokens, embedding length)."""
        part = rows.sum(axis=0, dtype=np.float64)
        self._sums[sequence.choice] = part if position == 0 else self._sums[sequence.choice] + part

    @override
    def result(self) -> Embedded:
        vectors: list[list[float]] = []
        for sequence in self.sequences:
            vector = self._sums[sequence.choice] / len(sequence.tokens)
            length = float(np.linalg.norm(vector))
            if self._normalize and length > 0:
                vector = vector / length
            vectors.append(vector.tolist())
        return Embedded(self.id, vectors, sum(len(sequence.tokens) for sequence in self.sequences))
