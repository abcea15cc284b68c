"""The loop of an encoder: a step reads some inputs whole, of whichever requests, and a request is answered with its last."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from slm_runtime.engine.messages import Busy, Embedded, Ranked, Stats, StepOutput
from slm_runtime.engine.prepare import Prepared, PreparedEmbedding, PreparedRanking, PreparedScoring, Sound
from slm_runtime.engine.protocol import Encoder, Rows
from slm_runtime.engine.structs import Message
from slm_runtime.scheduler.batching import Batcher, Input

_STATS_SECONDS: Final = 0.25
_QUEUE_BYTES: Final = 32 * 2**20
"""Of inputs that wait: of requests with many of them, fewer may do so."""
_RETRY_SECONDS: Final = 1.0


class _Answer:
    """One request, as its rows come."""

    def __init__(self, prepared: PreparedEmbedding | PreparedRanking) -> None:
        self.id = prepared.id
        self._prepared = prepared
        self._rows: dict[int, Rows] = {}
        """By the input's place."""

    @property
    def begun(self) -> bool:
        return bool(self._rows)

    @property
    def open(self) -> bool:
        return len(self._rows) < len(self._prepared.inputs)

    def add(self, place: int, row: Rows) -> None:
        self._rows[place] = row

    def message(self) -> Embedded | Ranked:
        prepared = self._prepared
        rows = [self._rows[place] for place in range(len(prepared.inputs))]
        tokens = sum(map(len, prepared.inputs))
        if isinstance(prepared, PreparedRanking):
            return Ranked(self.id, [float(row[0]) for row in rows], tokens)
        return Embedded(self.id, [_vector(row, normalize=prepared.request.normalize) for row in rows], tokens)


class EncoderLoop:
    """Belongs to one thread. `send` gives a message to the API process. See process.Loop."""

    def __init__(
        self,
        encoder: Encoder,
        send: Callable[[Message], None],
        *,
        queue_limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encoder = encoder
        self._send = send
        self._queue_limit = queue_limit
        self._clock = clock
        self._batcher = Batcher(encoder.capabilities)
        self._answers: dict[int, _Answer] = {}
        self._totals = Stats()
        self._stats_sent = 0.0

    @property
    def idle(self) -> bool:
        return not self._answers

    def take(self, sound: Sound) -> None:
        match sound:
            case PreparedEmbedding() | PreparedRanking():
                self._queue(sound)
            case Prepared() | PreparedScoring():
                raise TypeError("an encoder generates nothing")

    def _queue(self, prepared: PreparedEmbedding | PreparedRanking) -> None:
        waiting = self._waiting
        if waiting >= self._queue_limit or self._batcher.waiting_bytes >= _QUEUE_BYTES:
            self._send(Busy(prepared.id, _RETRY_SECONDS, waiting))
            return
        self._answers[prepared.id] = _Answer(prepared)
        for place, tokens in enumerate(prepared.inputs):
            self._batcher.put(Input(prepared.id, place, prepared.request.client, tokens))
            self._totals.prompt_tokens += len(tokens)

    def cancel(self, request: int) -> None:
        if self._answers.pop(request, None) is not None:
            self._batcher.remove(lambda one: one.request == request)
            self._tell()

    def step(self) -> None:
        began = self._clock()
        batch = self._batcher.take()
        rows = self._encoder.encode([one.tokens for one in batch])
        encoded = self._clock()
        self._batcher.done(batch)
        for one, row in zip(batch, rows, strict=True):
            answer = self._answers[one.request]
            answer.add(one.place, row)
            if not answer.open:
                del self._answers[answer.id]
                self._send(answer.message())
        self._totals.steps += 1
        self._totals.engine_seconds += encoded - began
        self._totals.busy_seconds += self._clock() - began
        self._tell()

    def _tell(self) -> None:
        """Send the counters now and then, and whenever there is nothing left to do."""
        now = self._clock()
        if not self.idle and now - self._stats_sent < _STATS_SECONDS:
            return
        self._stats_sent = now
        self._totals.waiting = self._waiting
        self._totals.running = self._totals.requests_running = len(self._answers) - self._waiting
        self._send(StepOutput(stats=self._totals))

    @property
    def _waiting(self) -> int:
        """Requests of which no input was read yet."""
        return sum(not answer.begun for answer in self._answers.values())


def _vector(row: Rows, *, normalize: bool) -> bytes:
    length = float(np.linalg.norm(row.astype(np.float64)))
    if normalize and length > 0:
        row = (row / length).astype(np.float32)
    return row.astype("<f4").tobytes()
