"""The scheduler on the deterministic engine, under random arrivals, cancellations, shortages and deadlines."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_runtime.engine.protocol import Capabilities
from slm_runtime.scheduler.plan import Sequence, Wanted, tokens_of
from slm_runtime.scheduler.scheduler import Policy, Scheduler
from tests.unit.runtime_engine.playing import (
    PlacingEngine,
    PlayedEngine,
)
from tests.unit.runtime_engine.scheduled import ALL, ROWS, TIGHT, UNIFIED, UNITS, World, alone, whole

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


@pytest.mark.parametrize("limits", [{}, {"sequences": 4, "cells": None, "mixed": False, "prefill_rows": 1}])
def test_a_short_prompt_overtakes_a_long_one_and_the_long_one_goes_on(limits):
    capabilities = Capabilities(context_length=1100, rows=4, sequences=8, step_tokens=100, cells=4400)
    world = World(PlayedEngine(replace(capabilities, **limits)))
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
