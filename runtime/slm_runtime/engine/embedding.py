"""One embedding request in the engine process: a vector for each input, from its hidden states as they come."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from slm_runtime.engine.messages import Embedded
from slm_runtime.engine.prepare import PreparedEmbedding
from slm_runtime.engine.protocol import Pooling, Rows
from slm_runtime.engine.reading import Reading
from slm_runtime.scheduler.plan import Sequence, Wanted


class EmbeddingState(Reading):
    def __init__(self, prepared: PreparedEmbedding, pooling: Pooling) -> None:
        sequences = [
            Sequence(
                request=prepared.id,
                choice=place,
                client=prepared.request.client,
                tokens=tokens,
                limit=len(tokens),
                wanted=Wanted.HIDDEN_STATES,
                adapter=prepared.request.adapter,
            )
            for place, tokens in enumerate(prepared.inputs)
        ]
        super().__init__(prepared.id, sequences)
        self._normalize = prepared.request.normalize
        self._pooling = pooling
        self._vectors: dict[int, NDArray[np.float64]] = {}
        """By the input's place; of a mean, the sum."""

    @override
    def add(self, sequence: Sequence, position: int, rows: Rows) -> None:
        """Hidden states: shape (tokens, embedding length)."""
        place = sequence.choice
        if self._pooling is Pooling.LAST:
            self._vectors[place] = rows[-1].astype(np.float64)
        else:
            part = rows.sum(axis=0, dtype=np.float64)
            self._vectors[place] = part if position == 0 else self._vectors[place] + part

    @override
    def result(self) -> Embedded:
        vectors: list[bytes] = []
        for sequence in self.sequences:
            vector = self._vectors.pop(sequence.choice)
            if self._pooling is Pooling.MEAN:
                vector /= len(sequence.tokens)
            length = float(np.linalg.norm(vector))
            if self._normalize and length > 0:
                vector /= length
            vectors.append(vector.astype("<f4").tobytes())
        return Embedded(self.id, vectors, sum(len(sequence.tokens) for sequence in self.sequences))
