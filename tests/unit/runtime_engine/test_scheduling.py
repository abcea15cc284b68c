"""The scheduler on the deterministic engine, under random arrivals, cancellations, shortages and deadlines."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from slm_runtime.engine.protocol import Capabilities, Medium, NoCells, Rows, SnapshotSizes, Tokens, Unfinished
from slm_runtime.scheduler.drafting import Drafter
from slm_runtime.scheduler.plan import Plan, Sequence, Wanted, carry_out, tokens_of
from slm_runtime.scheduler.scheduler import Policy, Scheduler
from tests.unit.runtime_engine.playing import (
    LETTERS,
    PlacingEngine,
    PlayedEngine,
    PlayedPicture,
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


requests = st.lists(
    st.tuples(
        st.integers(0, 6),  # steps before it comes
        st.integers(0, 2),  # which of three system prompts
        st.integers(0, 120),  # how much of it
        st.lists(st.integers(3, 9), min_size=1, max_size=12),
        st.integers(1, 30),  # tokens asked for
        st.sampled_from(["", "a", "b"]),
        st.one_of(st.none(), st.integers(0, 12)),  # cancelled after so many steps
        st.sampled_from([Wanted.NEXT_TOKEN, *Wanted]),
        st.sampled_from([0, 0, 1, 2]),  # through which adapter
    ),
    min_size=1,
    max_size=14,
)


@pytest.mark.parametrize("capabilities", ALL.values(), ids=ALL.keys())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(requests=requests, shortages=st.lists(st.integers(0, 5), max_size=10))
def test_every_request_gets_what_it_would_get_alone(capabilities, requests, shortages):
    # Steps refused in a row; halving a step of 64 tokens more often than that ends at nothing.
    refusals = iter([refused for count in shortages for refused in [*[True] * count, False]])
    world = World(
        PlayedEngine(capabilities, refuse=lambda: next(refusals, False)),
        foreseeing=capabilities.draft_rows > 0,
    )
    systems = [[10 + which] + [11 + (7 * i + which) % 40 for i in range(120)] for which in range(3)]
    cancelled: dict[int, int] = {}
    clock = 0
    for number, (wait, which, length, tail, count, client, cancel, wanted, adapter) in enumerate(requests):
        for _ in range(wait):
            world.step()
            clock += 1
            for request in [r for r, at in cancelled.items() if at <= clock and r in world.open]:
                gone = world.scheduler.remove(lambda s, request=request: s.request == request)
                assert gone == [world.open.pop(request)]
        world.submit(number, systems[which][: 1 + length] + tail, count, client, wanted, adapter)
        if cancel is not None:
            cancelled[number] = clock + cancel
    world.drain()
    for number, (_, which, length, tail, count, _, _, wanted, adapter) in enumerate(requests):
        prompt = systems[which][: 1 + length] + tail
        if number in world.finished and wanted is Wanted.NEXT_TOKEN:
            assert list(world.finished[number].tokens) == prompt + alone(prompt, count, adapter)
        elif number in world.finished:
            assert world.collected[number] == whole(prompt, wanted, adapter)
        else:
            assert number in cancelled
    assert world.scheduler.running == world.scheduler.waiting == 0
    assert world.scheduler.cells_used == world.scheduler.cells_cached == world.engine.cells_used


@settings(max_examples=25)
@given(requests=requests)
def test_cells_never_exceed_the_plan_and_the_account_is_exact(requests):
    world = World(PlayedEngine(TIGHT))
    for number, (wait, which, length, tail, count, client, _, wanted, adapter) in enumerate(requests):
        for _ in range(wait):
            world.step()
        world.submit(number, [10 + which] * (1 + length) + tail, count, client, wanted, adapter)
    while world.open:
        world.step()
        assert world.engine.cells_used <= 256
        running = world.scheduler.cells_used - world.scheduler.cells_cached
        assert 0 <= running <= world.scheduler.cells_used


@settings(max_examples=25)
@given(requests=requests)
def test_what_is_kept_never_scatters_the_cells_of_what_runs(requests):
    engine = PlacingEngine(UNITS)
    world = World(engine)
    for number, (wait, which, length, tail, count, client, _, wanted, adapter) in enumerate(requests):
        for _ in range(wait):
            world.step()
        world.submit(number, [10 + which] * (1 + length) + tail, count, client, wanted, adapter)
    world.drain()
    assert engine.scattered == 0


def test_a_full_cache_gives_up_whole_units_and_no_more_than_it_must():
    engine = PlacingEngine(UNITS)
    world = World(engine)
    for number in range(12):
        world.submit(number, [3 + number] * 90, 1)
        world.drain()
    assert engine.scattered == 0
    # Ten of 90 tokens, six units each, leave four of the 64.
    assert world.scheduler.cells_cached == 10 * 90
    assert world.engine.cells_used == 10 * 90


def test_where_single_cells_are_all_there_is_they_are_used():
    engine = PlacingEngine(replace(UNITS, cells=400, cell_unit=100))
    world = World(engine)
    for number in range(3):
        world.submit(number, [3 + number] * 101, 25)
    world.drain()
    assert world.scheduler.preemptions == 0
    assert all(list(world.finished[n].tokens) == [3 + n] * 101 + alone([3 + n] * 101, 25) for n in range(3))


def test_embedded_texts_drive_out_nothing():
    world = World(PlayedEngine(UNIFIED))
    chat = world.submit(0, [5] * 90, 10)
    world.drain()
    for number in range(1, 30):
        world.submit(number, [6 + number] * 60, 0, wanted=Wanted.HIDDEN_STATES)
    world.drain()
    assert world.scheduler.cells_cached == world.engine.cells_used == 99
    world.submit(99, [*chat.tokens, 6, 6], 3)
    world.drain()
    assert world.finished[99].cached_tokens == 99


def test_simultaneous_cold_requests_prefill_their_common_prompt_once():
    world = World(PlayedEngine(UNIFIED))
    system = list(range(3, 63)) * 2
    for number in range(4):
        world.submit(number, [*system, 3 + number, 9, 9], 4)
    world.drain()
    computed = sum(len(span.tokens) for step in world.engine.steps for span in step)
    assert computed == len(system) + 4 * 3 + 4 * 3
    assert [world.finished[n].cached_tokens for n in range(4)] == [0, 120, 120, 120]


def test_choices_of_one_request_share_its_prefill_however_short():
    world = World(PlayedEngine(UNIFIED))
    choices = [Sequence(0, choice, "", tokens_of([7] * 10), 12) for choice in range(4)]
    for choice in choices:
        world.scheduler.submit(choice)
    world.open = dict(enumerate(choices))
    while world.scheduler.running or world.scheduler.waiting:
        world.step()
    computed = sum(len(span.tokens) for step in world.engine.steps for span in step)
    assert computed == 10 + 3 + 4


def test_a_conversation_goes_on_where_it_ended():
    world = World(PlayedEngine(ROWS))
    first = world.submit(0, [5] * 90, 10)
    world.drain()
    world.submit(1, [*first.tokens, 6, 6], 3)
    world.drain()
    assert world.finished[1].cached_tokens == 99


def test_running_streams_keep_their_pace_while_a_long_prompt_comes_in():
    capabilities = Capabilities(context_length=2100, rows=4, sequences=8, step_tokens=512, cells=8400)
    world = World(PlayedEngine(capabilities), Policy(mixed_tokens=64, mixed_seconds=0.25))
    for number in range(3):
        world.submit(number, [3 + number] * 5, 200)
    for _ in range(5):
        world.step()
    before = len(world.engine.steps)
    world.submit(9, [8] * 2000, 2)
    while 9 in world.open:
        world.step()
    for step in world.engine.steps[before:]:
        assert {span.sequence for span in step if len(span.tokens) == 1} >= {0, 1, 2}
        assert sum(len(span.tokens) for span in step) <= 3 + 64


def test_no_step_of_a_slow_engine_lasts_for_ever():
    capabilities = Capabilities(context_length=2100, rows=4, sequences=8, step_tokens=512, cells=8400)
    scheduler = Scheduler(capabilities, Policy(longest_seconds=30))

    def taken(identity: int, prompt: int, pace: float) -> list[int]:
        """Prompt tokens of each step, of an engine that takes in so many a second."""
        sequence = Sequence(identity, 0, "", tokens_of([3 + identity] * prompt), prompt + 1)
        scheduler.submit(sequence)
        steps = []
        while sequence.remaining:
            plan = scheduler.plan()
            steps.append(sum(len(span.tokens) for span in plan.spans))
            scheduler.advance(plan, steps[-1] / pace)
        scheduler.finish(sequence)
        return steps

    assert taken(1, 200, pace=100) == [128, 72]
    assert taken(2, 5, pace=2) == [5]
    assert taken(3, 200, pace=4) == [60, 120, 20]
    assert taken(4, 1500, pace=400) == [120, 512, 512, 356]
    assert taken(5, 3, pace=0.02) == [3]
    assert taken(6, 200, pace=20) == [1, 199]


def test_what_is_wanted_of_others_takes_turns_with_running_streams():
    world = World(PlayedEngine(UNIFIED))
    world.submit(0, [4] * 5, 190)
    world.submit(1, [5] * 180, 0, wanted=Wanted.HIDDEN_STATES)
    world.submit(2, [6] * 180, 0, wanted=Wanted.LOGITS)
    while {1, 2} <= set(world.open):
        world.step()
    assert [world.turns[start::3] for start in range(3)] == [[turn] * 8 for turn in Wanted]
    while set(world.open) > {0}:
        world.step()
    assert world.turns[24:] == [Wanted.NEXT_TOKEN, Wanted.HIDDEN_STATES] * 4


@pytest.mark.parametrize(("seconds", "steps"), [(0.25, 1), (0.021, 5)], ids=["slow", "fast"])
def test_those_of_one_adapter_go_together_and_take_turns_with_others(seconds, steps):
    world = World(PlayedEngine(UNIFIED), Policy(adapter_seconds=0.1), pace=lambda _: seconds)
    for number, adapter in enumerate((0, 1, 1, 2)):
        world.submit(number, [4 + number] * 5, 30, adapter=adapter)
    while len(world.finished) < 4:
        world.step()
    together = [(step[0].adapter, len(step)) for step in world.engine.steps]
    turns = [(0, 1)] * steps + [(1, 2)] * steps + [(2, 1)] * steps
    assert together == turns * (30 // steps)


def test_what_one_adapter_made_of_a_prompt_is_no_other_s():
    world = World(PlayedEngine(UNIFIED))
    prompt = [1, *range(3, 60)]
    for number, adapter in enumerate((0, 1, 2, 1, 0)):
        world.submit(number, prompt, 3, adapter=adapter)
        world.drain()
    spared = len(prompt) - 1
    assert [world.finished[number].cached_tokens for number in range(5)] == [0, 0, 0, spared, spared]


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "in turns"])
def test_a_long_prompt_of_one_adapter_doesn_t_hold_up_streams_of_another(mixed):
    capabilities = Capabilities(
        context_length=2100, rows=4, sequences=8, step_tokens=512, cells=8400, adapters=1, mixed=mixed
    )
    world = World(PlayedEngine(capabilities), Policy(mixed_tokens=64, mixed_seconds=0.25))
    world.submit(0, [3] * 5, 200)
    for _ in range(5):
        world.step()
    before = len(world.engine.steps)
    world.submit(9, [8] * 1000, 2, adapter=1)
    while world.open[9].computed < 900:
        world.step()
    taken = [sum(len(span.tokens) for span in step) for step in world.engine.steps[before:]]
    assert set(taken) == {1, 64}
    assert taken == [1, 64] * (len(taken) // 2) or taken == [64, 1] * (len(taken) // 2) + [64]


def test_a_scored_prompt_is_computed_whole_and_serves_the_generation_after_it():
    world = World(PlayedEngine(UNIFIED))
    prompt = [1, *range(3, 60)]
    for number, wanted in enumerate((Wanted.LOGITS, Wanted.LOGITS, Wanted.NEXT_TOKEN)):
        world.submit(number, prompt, 3, wanted=wanted)
        world.drain()
    assert [world.finished[number].cached_tokens for number in range(3)] == [0, 0, len(prompt) - 1]


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "in turns"])
@pytest.mark.parametrize(
    ("tokens_a_second", "expected"), [(40, 32), (400, 177), (100_000, 512)], ids=["slow", "between", "fast"]
)
def test_what_a_prompt_takes_of_a_step_follows_the_engine_s_speed(tokens_a_second, expected, mixed):
    capabilities = Capabilities(
        context_length=5000, rows=4, sequences=8, step_tokens=512, cells=20_000, mixed=mixed
    )
    world = World(PlayedEngine(capabilities), pace=lambda tokens: tokens / tokens_a_second)
    for number in range(3):
        world.submit(number, [3 + number] * 5, 400)
    for _ in range(5):
        world.step()
    world.submit(9, [8] * 4000, 2)
    while world.open[9].computed < 3000:
        world.step()
    taken = [len(span.tokens) for step in world.engine.steps[-2:] for span in step if len(span.tokens) > 1]
    assert taken[-1] == pytest.approx(expected, abs=3)


def test_what_a_prompt_takes_of_a_step_comes_in_grains():
    capabilities = Capabilities(
        context_length=5000, rows=4, sequences=8, step_tokens=512, cells=20_000, mixed=False, prompt_grain=64
    )
    world = World(PlayedEngine(capabilities), pace=lambda tokens: tokens / 400)
    world.submit(0, [3] * 5, 400)
    world.step()
    world.submit(9, [8] * 4000, 2)
    while world.open[9].computed < 3000:
        world.step()
    taken = {len(span.tokens) for step in world.engine.steps[1:] for span in step if len(span.tokens) > 1}
    assert taken == {128}


def test_a_short_prompt_overtakes_a_long_one_and_the_long_one_goes_on():
    capabilities = Capabilities(context_length=1100, rows=4, sequences=8, step_tokens=100, cells=4400)
    world = World(PlayedEngine(capabilities))
    world.submit(0, [4] * 1000, 1)
    world.step()
    for number in range(1, 60):
        world.submit(number, [5 + number % 50, 8] * 40, 1)
        if len(world.open) > 3:
            world.step()
            world.step()
        if 0 in world.finished:
            break
    world.drain()
    order = list(world.finished)
    assert order.index(1) < order.index(0) < 40


def test_a_client_with_one_request_isn_t_behind_all_of_another_s():
    world = World(PlayedEngine(UNIFIED))
    for number in range(40):
        world.submit(number, [3 + number] * 20, 10, client="flood")
    world.step()
    world.submit(99, [3] * 20, 10, client="single")
    world.drain()
    assert list(world.finished).index(99) < 10


@pytest.mark.parametrize("wanted", [Wanted.HIDDEN_STATES, Wanted.NEXT_TOKEN])
def test_a_request_isn_t_behind_all_that_another_of_its_client_is_made_of(wanted):
    world = World(PlayedEngine(UNIFIED))
    for place in range(500):
        tokens = tokens_of([1, 3 + place % 60, 3 + place // 60, 5, 6])
        world.scheduler.submit(Sequence(1, place, "", tokens, 5 + (wanted is Wanted.NEXT_TOKEN), wanted))
    plan = world.scheduler.plan()
    world.scheduler.advance(plan, 0.1)
    late = Sequence(2, 0, "", tokens_of([1, 64]), 3)
    world.scheduler.submit(late)
    for _ in range(4):
        for sequence in [s for s in plan.sequences if s.remaining == 0]:
            world.scheduler.finish(sequence)
        plan = world.scheduler.plan()
        world.scheduler.advance(plan, 0.1)
    assert late.started


def test_a_shortage_makes_the_youngest_wait_and_loses_nothing():
    shortage = iter([False, False, True, True])
    world = World(PlayedEngine(UNIFIED, refuse=lambda: next(shortage, False)))
    old = world.submit(0, [5] * 20, 10)
    world.submit(1, [6] * 20, 10)
    world.drain()
    assert world.scheduler.preemptions == 1
    assert list(world.finished) == [0, 1]
    assert list(old.tokens) == [5] * 20 + alone([5] * 20, 10)
    assert list(world.finished[1].tokens) == [6] * 20 + alone([6] * 20, 10)


def test_what_can_t_fit_even_alone_is_said_so():
    world = World(PlayedEngine(UNIFIED, refuse=lambda: True))
    for number in range(3):
        world.submit(number, [5 + number] * 20, 10)
    for _ in range(20):
        plan = world.scheduler.plan()
        if not world.scheduler.retreat():
            break
    assert [sequence.request for sequence in plan.sequences] == [0]
    assert len(plan.spans[0].tokens) == 1


def test_a_prompt_that_leaves_no_room_is_refused():
    world = World(PlayedEngine(UNIFIED))
    with pytest.raises(ValueError, match="200"):
        world.submit(0, [5] * 200, 10)


def pictured(parts: list[int], steps: int = 2) -> tuple[list[int], tuple[Medium, ...]]:
    """A prompt: so many letters, or, where negative, one of three pictures and a letter after it."""
    prompt: list[int] = []
    media: list[Medium] = []
    for part in parts:
        if part < 0:
            media.append(Medium(len(prompt), 20 - 5 * part, PlayedPicture(steps)))
            prompt += [1000 * part - place for place in range(media[-1].length)]
        prompt += [3] if part < 0 else [4 + part] * part
    return prompt, tuple(media)


SEEING = replace(UNIFIED, media=True)
pictures = st.lists(
    st.tuples(
        st.integers(0, 6),  # steps before it comes
        st.lists(st.integers(-3, 20).filter(bool), min_size=1, max_size=4),  # what the prompt is made of
        st.integers(1, 20),  # tokens asked for
        st.one_of(st.none(), st.integers(0, 12)),  # cancelled after so many steps
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(
    "capabilities",
    [
        SEEING,
        replace(SEEING, whole_media=True),
        replace(SEEING, step_tokens=8),
        replace(SEEING, cells=TIGHT.cells, mixed=False),
        replace(SEEING, partial_removal=False, sequences=4),
    ],
    ids=["any part", "whole", "small steps", "tight", "no cuts"],
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(requests=pictures, shortages=st.lists(st.integers(0, 2), max_size=10))
def test_pictures_are_runs_of_positions_like_any_other(capabilities, requests, shortages):
    refusals = iter([refused for count in shortages for refused in [*[True] * count, False]])
    world = World(PlayedEngine(capabilities, refuse=lambda: next(refusals, False)))
    cancelled: dict[int, int] = {}
    prompts: dict[int, list[int]] = {}
    for number, (wait, parts, count, cancel) in enumerate(requests):
        for _ in range(wait):
            world.step()
        for request in [r for r, at in cancelled.items() if at <= number and r in world.open]:
            assert world.scheduler.remove(lambda s, request=request: s.request == request)
            del world.open[request]
        prompts[number], media = pictured(parts)
        sequence = Sequence(
            number, 0, "", tokens_of(prompts[number]), len(prompts[number]) + count, media=media
        )
        world.open[number] = sequence
        world.scheduler.submit(sequence)
        if cancel is not None:
            cancelled[number] = number + cancel
    world.drain()
    for number, sequence in world.finished.items():
        prompt = prompts[number]
        assert list(sequence.tokens) == prompt + alone(prompt, requests[number][2])
    assert len(world.finished) >= len(requests) - len(cancelled)
    assert world.scheduler.cells_used == world.scheduler.cells_cached == world.engine.cells_used


def test_streams_have_a_step_between_two_that_encode_a_picture():
    world = World(PlayedEngine(SEEING))
    stream = world.submit(0, [4] * 5, 100)
    world.step()
    prompt, media = pictured([-1], steps=10)
    world.open[1] = Sequence(1, 0, "", tokens_of(prompt), len(prompt) + 3, media=media)
    world.scheduler.submit(world.open[1])
    before = len(stream.tokens)
    while world.unfinished < 10:
        world.step()
    assert len(stream.tokens) - before >= 9
    world.drain()


def test_a_picture_that_is_known_is_not_computed_again():
    world = World(PlayedEngine(SEEING))
    for number, tail in enumerate(([5, 6], [7, 8])):
        prompt, media = pictured([10, -2])
        world.open[number] = Sequence(number, 0, "", tokens_of(prompt + tail), len(prompt) + 5, media=media)
        world.scheduler.submit(world.open[number])
        world.drain()
    assert world.finished[1].cached_tokens == 10 + 30 + 1
    assert world.unfinished == 2


def test_what_is_guessed_right_comes_in_fewer_steps():
    world = World(PlayedEngine(DRAFTS), foreseeing=True)
    world.submit(0, [5] * 20, 100)
    world.drain()
    assert list(world.finished[0].tokens) == [5] * 20 + alone([5] * 20, 100)
    assert len(world.engine.steps) + world.accepted == 100
    assert world.accepted > 70
    assert world.scheduler.cells_used == world.engine.cells_used


def test_what_an_ended_sequence_was_guessed_to_go_on_with_isn_t_kept_for_others():
    world = World(PlayedEngine(DRAFTS), foreseeing=True)
    first = world.submit(0, [5] * 20, 50)
    world.drain()
    world.submit(1, [*first.tokens, 6, 6], 3)
    world.drain()
    assert world.finished[1].cached_tokens in (69, 70)
    assert list(world.finished[1].tokens[72:]) == alone([*first.tokens, 6, 6], 3)


def test_while_others_wait_nothing_is_guessed():
    world = World(PlayedEngine(DRAFTS), foreseeing=True)
    for number in range(8):
        world.submit(number, [5 + number] * 20, 40)
    while len(world.open) > 4:
        world.step()
        assert len(world.open) <= 4 or all(span.rows <= 1 for span in world.engine.steps[-1])
    world.drain()
    assert world.accepted > 0


def test_where_a_step_of_more_tokens_takes_as_much_longer_nothing_is_guessed():
    world = World(PlayedEngine(DRAFTS), foreseeing=True, pace=lambda tokens: 0.01 * tokens)
    world.submit(0, [5] * 20, 150)
    world.drain()
    drafted = sum(len(step[0].tokens) > 1 for step in world.engine.steps[1:])
    assert 0 < drafted <= 5, "each size is measured once"


def test_a_shortage_costs_the_guesses_and_nothing_that_is_kept():
    shortage = iter([False] * 4 + [True])
    world = World(PlayedEngine(DRAFTS, refuse=lambda: next(shortage, False)), foreseeing=True)
    world.submit(0, [9] * 30, 2)
    world.drain()
    kept = world.scheduler.cells_cached
    world.submit(1, [5] * 20, 30)
    for _ in range(3):
        world.step()
    assert world.scheduler.cells_cached == kept
    world.drain()
    assert list(world.finished[1].tokens[20:]) == alone([5] * 20, 30)
