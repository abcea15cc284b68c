"""A scheduler that is driven as the step loop drives it, on the played engine; and kinds of engines."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from typing_extensions import override

from slm_runtime.engine.protocol import Capabilities, NoCells, Rows, SnapshotSizes, Tokens, Unfinished
from slm_runtime.scheduler.drafting import Drafter
from slm_runtime.scheduler.plan import Plan, Sequence, Wanted, carry_out, tokens_of
from slm_runtime.scheduler.scheduler import Policy, Scheduler
from tests.unit.runtime_engine.playing import (
    LETTERS,
    PlayedEngine,
    next_token,
    row_of,
)

UNIFIED = Capabilities(
    context_length=200,
    rows=4,
    sequences=12,
    step_tokens=64,
    cells=800,
    embedding_tokens=16,
    scored_tokens=24,
    adapters=2,
)
TIGHT = replace(UNIFIED, cells=256)
ROWS = replace(UNIFIED, sequences=4, cells=None, mixed=False, prefill_rows=1)
WHOLE = replace(UNIFIED, sequences=4, partial_removal=False)
DRAFTS = replace(UNIFIED, draft_rows=24, mixed=False)
TIGHT_DRAFTS = replace(TIGHT, draft_rows=24, cell_unit=16)
NO_COPY = replace(UNIFIED, rows=3, sequences=3, cells=None, prefix_copy=False)
UNITS = replace(UNIFIED, cells=1024, cell_unit=16)
FEW_UNITS = replace(TIGHT, cell_unit=16)
RECURRENT = replace(WHOLE, snapshots=SnapshotSizes(fixed=100, token=1), snapshot_room=700)
WINDOWED = replace(
    WHOLE,
    cells=256,
    snapshots=SnapshotSizes(fixed=9, token=1, window_token=3, window=30),
    snapshot_room=400,
)
NO_CELLS_SAVED = replace(RECURRENT, cells=None, rows=3, sequences=3)
ALL = {
    "unified": UNIFIED,
    "tight": TIGHT,
    "rows": ROWS,
    "whole": WHOLE,
    "no copy": NO_COPY,
    "units": UNITS,
    "few units": FEW_UNITS,
    "recurrent": RECURRENT,
    "windowed": WINDOWED,
    "rows saved": NO_CELLS_SAVED,
    "drafts": DRAFTS,
    "drafts in little room": TIGHT_DRAFTS,
}


def alone(prompt: list[int], count: int, adapter: int = 0) -> list[int]:
    held = list(prompt)
    for _ in range(count):
        held.append(next_token(held, adapter))
    return held[len(prompt) :]


def whole(prompt: list[int], wanted: Wanted, adapter: int = 0) -> list[list[float]]:
    """What the engine gives for each token of it."""
    if wanted is Wanted.HIDDEN_STATES:
        return [[token, place] for place, token in enumerate(prompt)]
    return [row_of(prompt[:end], adapter).tolist() for end in range(1, len(prompt) + 1)]


class Seer(Drafter):
    """Guesses right, but for every fifth token."""

    def __init__(self, adapter: int) -> None:
        super().__init__(0)
        self._adapter = adapter

    @override
    def guess(self, tokens: Tokens, most: int) -> tuple[Tokens, float]:
        held = list(tokens)
        for _ in range(most):
            right = next_token(held, self._adapter)
            held.append(right if len(held) % 5 else 3 + right % LETTERS)
        return tokens_of(held[len(tokens) :]), 0.9


@dataclass
class World:
    """Drives a scheduler as the step loop does."""

    engine: PlayedEngine
    policy: Policy = field(default_factory=Policy)
    pace: Callable[[int], float] = lambda _: 0.25
    """Seconds that a step of so many tokens takes."""
    finished: dict[int, Sequence] = field(default_factory=dict)
    open: dict[int, Sequence] = field(default_factory=dict)
    collected: dict[int, list[list[float]]] = field(default_factory=dict)
    """Of sequences of which each token's own is wanted."""
    foreseeing: bool = False
    """Whether drafts are made, of which most come true."""
    accepted: int = 0
    """Tokens of drafts that came true."""
    turns: list[Wanted] = field(default_factory=list)
    """Of the steps that were carried out."""
    unfinished: int = 0
    """Steps that went into a picture which isn't encoded yet."""

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.engine.capabilities, self.policy)

    def submit(
        self,
        request: int,
        prompt: list[int],
        count: int,
        client: str = "",
        wanted: Wanted = Wanted.NEXT_TOKEN,
        adapter: int = 0,
    ) -> Sequence:
        limit = len(prompt) + count * (wanted is Wanted.NEXT_TOKEN)
        sequence = Sequence(request, 0, client, tokens_of(prompt), limit, wanted, adapter)
        if self.foreseeing:
            sequence.drafter = Seer(adapter)
        self.open[request] = sequence
        self.scheduler.submit(sequence)
        return sequence

    def step(self) -> None:
        plan = self.scheduler.plan()
        carry_out(plan.operations, self.engine)
        if plan.spans:
            try:
                rows = self.engine.step(plan.spans, plan.wanted.output)
            except NoCells:
                assert self.scheduler.retreat()
            except Unfinished:
                self.unfinished += 1
            else:
                self.turns.append(plan.wanted)
                self.scheduler.advance(plan, self.pace(sum(len(span.tokens) for span in plan.spans)))
                self.take(plan, rows)
        # What is still to be carried out isn't freed in the engine yet.
        if not self.open:
            carry_out(self.scheduler.plan().operations, self.engine)

    def take(self, plan: Plan, rows: Rows) -> None:
        assert {sequence.wanted for sequence in plan.sequences} == {plan.wanted}
        if plan.wanted is Wanted.NEXT_TOKEN:
            self.verify(plan, rows)
            return
        given = rows.tolist()
        for span, sequence in zip(plan.spans, plan.sequences, strict=True):
            collected = self.collected.setdefault(sequence.request, [])
            collected[span.position :] = [given.pop(0) for _ in span.tokens]
            if sequence.remaining == 0:
                self.end(sequence)
        assert not given

    def verify(self, plan: Plan, rows: Rows) -> None:
        chosen = [int(row.argmax()) for row in rows]
        for span, sequence, draft in zip(plan.spans, plan.sequences, plan.drafts, strict=True):
            own = [chosen.pop(0) for _ in range(span.rows)]
            right = next((n for n, guess in enumerate(draft) if own[n] != guess), len(draft))
            self.accepted += right
            sequence.tokens.extend(own[: right + 1])
            assert len(sequence.tokens) <= sequence.limit
            if len(sequence.tokens) == sequence.limit:
                self.end(sequence)
            elif draft:
                self.scheduler.verified(sequence)
        assert not chosen

    def end(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        self.finished[sequence.request] = sequence
        self.open = {key: other for key, other in self.open.items() if other is not sequence}

    def drain(self, steps: int = 5000) -> None:
        for _ in range(steps):
            if not self.open:
                return
            self.step()
        raise AssertionError(f"starved: {sorted(self.open)}")
