"""The step loop: what the scheduler plans, the engine computes and the samplers choose, as one message a step."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from slm_runtime.engine.embedding import EmbeddingState
from slm_runtime.engine.generation import GenerationState
from slm_runtime.engine.messages import Accepted, Busy, Refused, RequestFinished, Started, Stats, StepOutput
from slm_runtime.engine.prepare import Prepared, PreparedEmbedding, PreparedRanking, PreparedScoring, Sound
from slm_runtime.engine.protocol import Engine, MediumFailed, NoCells, Rows, Unfinished
from slm_runtime.engine.reading import Reading
from slm_runtime.engine.scoring import ScoringState
from slm_runtime.engine.structs import Message
from slm_runtime.scheduler.plan import Plan, Sequence, Wanted, carry_out
from slm_runtime.scheduler.scheduler import Policy, Scheduler

_STATS_SECONDS: Final = 0.25
_QUEUE_BYTES: Final = 32 * 2**20
"""Of sequences that wait: of requests with many inputs or choices fewer may do so."""
_FIRST_GUESS: Final = 1.0
"""Seconds a request takes, before any was measured."""


class StepLoop:
    """Belongs to one thread. `send` gives a message to the API process."""

    def __init__(
        self,
        engine: Engine,
        send: Callable[[Message], None],
        *,
        queue_limit: int,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._send = send
        self._queue_limit = queue_limit
        self._clock = clock
        self._scheduler = Scheduler(engine.capabilities, policy)
        self._generations: dict[int, GenerationState] = {}
        self._readings: dict[int, Reading] = {}
        self._ended: deque[float] = deque(maxlen=64)
        """When the latest requests of this busy time ended: what the speed of the queue is measured by."""
        can = engine.capabilities
        cells = can.sequences * can.context_length if can.cells is None else can.cells
        self._totals = Stats(kv_cells=cells)
        self._stats_sent = 0.0

    @property
    def idle(self) -> bool:
        """Nothing to do until a request comes."""
        return not (self._generations or self._readings)

    def take(self, sound: Sound) -> None:
        match sound:
            case Prepared():
                self.submit(sound)
            case PreparedEmbedding():
                self.embed(sound)
            case PreparedScoring():
                self.score(sound)
            case PreparedRanking():
                raise TypeError("an engine that generates scores no pairs")

    def submit(self, prepared: Prepared) -> None:
        if self._turned_away(prepared.id):
            return
        generation = GenerationState(prepared, self._engine.vocabulary, self._clock())
        self._generations[prepared.id] = generation
        for sequence in generation.sequences:
            self._totals.prompt_tokens += len(sequence.tokens)
            self._scheduler.submit(sequence)
        self._send(Accepted(prepared.id, len(prepared.tokens)))

    def embed(self, prepared: PreparedEmbedding) -> None:
        self._read(EmbeddingState(prepared, self._engine.capabilities.pooling))

    def score(self, prepared: PreparedScoring) -> None:
        self._read(ScoringState(prepared, self._engine.vocabulary))

    def _read(self, reading: Reading) -> None:
        if self._turned_away(reading.id):
            return
        if not reading.open:
            self._send(reading.result())
            return
        self._readings[reading.id] = reading
        for sequence in reading.sequences:
            self._totals.prompt_tokens += len(sequence.tokens)
            self._scheduler.submit(sequence)

    def _turned_away(self, request: int) -> bool:
        """Tell the request, and the caller, if the queue takes no more."""
        waiting = self._scheduler.waiting
        full = waiting >= self._queue_limit or self._scheduler.waiting_bytes >= _QUEUE_BYTES
        if full:
            self._send(Busy(request, self._retry_after(waiting), waiting))
        return full

    def cancel(self, request: int) -> None:
        """Free all that the request holds; it is told nothing more."""
        known = self._generations.pop(request, None) or self._readings.pop(request, None)
        if known is not None:
            self._scheduler.remove(lambda sequence: sequence.request == request)
            if self.idle:
                # No step follows that would tell it.
                self._stats_sent = self._clock()
                self._send(StepOutput(stats=self._stats()))

    def step(self) -> None:
        """Plan, compute, choose, send. Raises EngineFault."""
        began = self._clock()
        output = StepOutput()
        self._expire(began, output)
        plan = self._scheduler.plan()
        rows, engine_seconds = self._carry_out(plan, output)
        if rows is not None:
            self._scheduler.advance(plan, engine_seconds)
            if plan.wanted is Wanted.NEXT_TOKEN:
                self._choose(plan, rows, output)
            else:
                self._collect(plan, rows)
            self._totals.steps += 1
        now = self._clock()
        self._totals.engine_seconds += engine_seconds
        self._totals.busy_seconds += now - began
        if self.idle:
            self._ended.clear()
        if now - self._stats_sent >= _STATS_SECONDS or self.idle:
            output.stats = self._stats()
            self._stats_sent = now
        if output.deltas or output.choices or output.stats is not None:
            self._send(output)

    def _expire(self, now: float, output: StepOutput) -> None:
        for generation in list(self._generations.values()):
            deadline = generation.request.deadline
            if deadline is not None and now >= deadline:
                late = self._scheduler.remove(lambda s, request=generation.id: s.request == request)  # type: ignore[misc]
                waited = all(not sequence.started for sequence in late)
                message = (
                    "the deadline passed while the request waited for its turn"
                    if waited
                    else "the deadline passed"
                )
                self._close(late, "deadline", message, output)

    def _carry_out(self, plan: Plan, output: StepOutput) -> tuple[Rows | None, float]:
        """The rows of what was wanted, if the step was carried out; and the engine's seconds."""
        carry_out(plan.operations, self._engine)
        if not plan.spans:
            return None, 0.0
        began = self._clock()
        if plan.started:
            # Ahead of the step: should it be the last one, the API process must know who was in it.
            for sequence in plan.started:
                if generation := self._generations.get(sequence.request):
                    generation.started(began)
                self._totals.cached_tokens += sequence.cached_tokens
            self._send(Started([sequence.request for sequence in plan.started]))
        try:
            return self._engine.step(plan.spans, plan.wanted.output), self._clock() - began
        except NoCells:
            if not self._scheduler.retreat():
                self._fail(
                    plan.sequences, "the engine found no room for even one more token of this request", output
                )
        except MediumFailed as error:
            self._fail(plan.sequences, str(error), output)
        except Unfinished:
            pass
        return None, self._clock() - began

    def _choose(self, plan: Plan, rows: Rows, output: StepOutput) -> None:
        now = self._clock()
        for sequence, draft, own in zip(plan.sequences, plan.drafts, _of_each(plan, rows), strict=True):
            if not len(own):
                continue
            generation = self._generations[sequence.request]
            ended, accepted = False, 0
            for place, row in enumerate(own):
                self._totals.generated_tokens += 1
                ended = generation.choose(sequence, row, now, output)
                if ended or place == len(draft) or sequence.tokens[-1] != draft[place]:
                    break
                accepted += 1
            self._totals.drafted_tokens += len(draft)
            self._totals.accepted_tokens += accepted
            generation.drafted(len(draft), accepted)
            if ended:
                self._scheduler.finish(sequence)
                self._finish(generation, output)
            elif draft:
                self._scheduler.verified(sequence)

    def _collect(self, plan: Plan, rows: Rows) -> None:
        for span, sequence, own in zip(plan.spans, plan.sequences, _of_each(plan, rows), strict=True):
            reading = self._readings[sequence.request]
            reading.add(sequence, span.position, own)
            if sequence.remaining == 0:
                self._scheduler.finish(sequence)
                reading.end()
            if not reading.open:
                del self._readings[reading.id]
                self._ended.append(self._clock())
                self._send(reading.result())

    def _fail(self, sequences: list[Sequence], message: str, output: StepOutput) -> None:
        for sequence in sequences:
            if sequence.generates:
                self._scheduler.finish(sequence)
            elif sequence.request in self._readings:
                self.cancel(sequence.request)
                self._send(Refused(sequence.request, message))
        self._close([sequence for sequence in sequences if sequence.generates], "error", message, output)

    def _close(self, sequences: list[Sequence], reason: str, message: str, output: StepOutput) -> None:
        for sequence in sequences:
            generation = self._generations[sequence.request]
            generation.end(sequence.choice, reason, output, message)  # type: ignore[arg-type]
            self._finish(generation, output)

    def _finish(self, generation: GenerationState, output: StepOutput) -> None:
        if generation.open:
            return
        now = self._clock()
        del self._generations[generation.id]
        self._ended.append(now)
        finished: RequestFinished = generation.finish(now)
        output.finished.append(finished)

    def _retry_after(self, waiting: int) -> float:
        """Seconds until the queue has room, at the pace of the latest requests."""
        ended = self._ended
        pace = (ended[-1] - ended[0]) / (len(ended) - 1) if len(ended) > 1 else _FIRST_GUESS
        return min(max(pace * max(waiting - self._queue_limit + 1, 1), 0.1), 60.0)

    def _stats(self) -> Stats:
        totals, scheduler = self._totals, self._scheduler
        totals.running, totals.waiting = scheduler.running, scheduler.waiting
        totals.requests_running = scheduler.requests_running
        totals.kv_cells_used, totals.kv_cells_cached = scheduler.cells_used, scheduler.cells_cached
        totals.preemptions = scheduler.preemptions
        return totals


def _of_each(plan: Plan, rows: Rows) -> Iterator[Rows]:
    """The rows that each of the plan's spans has wanted."""
    start = 0
    for span in plan.spans:
        yield rows[start : start + span.rows]
        start += span.rows
