"""The scheduler on deterministic engines whose sequences can't be cut: what is saved, when, and who goes on from it."""

from dataclasses import replace

import pytest

from slm_runtime.scheduler.plan import Sequence, tokens_of
from tests.unit.runtime_engine.playing import PlayedEngine
from tests.unit.runtime_engine.scheduled import ALL, RECURRENT, World, alone

SAVING = {name: ALL[name] for name in ("recurrent", "windowed", "rows saved")}


def computed(world: World) -> int:
    return sum(len(span.tokens) for step in world.engine.steps for span in step)


@pytest.mark.parametrize("capabilities", SAVING.values(), ids=SAVING)
def test_choices_of_a_model_that_can_t_be_cut_share_their_prompt(capabilities):
    """By one snapshot, before the last token: each choice takes that in by itself, for the logits of its own."""
    world = World(PlayedEngine(capabilities))
    choices = [Sequence(0, choice, "", tokens_of([7, 8] * 20), 42) for choice in range(3)]
    for choice in choices:
        world.scheduler.submit(choice)
    world.open = dict(enumerate(choices))
    while world.open:
        world.step()
    assert computed(world) == 39 + 3 + 3
    assert [choice.cached_tokens for choice in choices] == [0, 39, 39]
    assert all(list(c.tokens) == [7, 8] * 20 + alone([7, 8] * 20, 2) for c in choices)


@pytest.mark.parametrize("capabilities", SAVING.values(), ids=SAVING)
def test_what_two_prompts_share_is_saved_where_they_part(capabilities):
    """Nothing tells where a system prompt ends but the second that begins with it."""
    world = World(PlayedEngine(capabilities))
    system = list(range(3, 63))
    for number in range(4):
        world.submit(number, [*system, 3 + number, *[9] * number, 8], 4)
        world.drain()
    assert [world.finished[n].cached_tokens for n in range(4)] == [0, 0, 60, 60]


@pytest.mark.parametrize("capabilities", SAVING.values(), ids=SAVING)
def test_simultaneous_prompts_of_a_model_that_can_t_be_cut_share_what_they_begin_with(capabilities):
    world = World(PlayedEngine(capabilities))
    system = list(range(3, 63))
    for number in range(3):
        world.submit(number, [*system, 3 + number, 9, 9], 4)
    world.drain()
    assert computed(world) == 60 + 3 * 3 + 3 * 3
    assert [world.finished[n].cached_tokens for n in range(3)] == [0, 60, 60]


def test_what_ended_last_goes_on_without_a_snapshot_and_what_ended_before_with_one():
    world = World(PlayedEngine(replace(RECURRENT, rows=2, sequences=2)))
    ended = [world.submit(number, [3 + number] * 40, 20) for number in range(4)]
    world.drain()
    saved = set(world.engine.saved)
    world.submit(8, [*ended[3].tokens, 6, 6], 1)
    world.drain()
    assert world.finished[8].cached_tokens == 59
    assert set(world.engine.saved) == saved
    world.submit(9, [*ended[0].tokens, 6, 6], 1)
    world.drain()
    assert world.finished[9].cached_tokens == 59


def test_snapshots_that_were_of_use_outlast_others():
    world = World(PlayedEngine(RECURRENT))
    system = list(range(3, 63))
    for number in range(40):
        world.submit(number, [*system, 3 + number, 9, 9], 2)
        world.submit(100 + number, [5 + number] * 50, 2)
        world.drain()
    assert len(world.engine.saved) > 1
    assert all(world.finished[number].cached_tokens == 60 for number in range(2, 40))


def test_what_is_too_large_to_be_saved_is_waited_for_by_nobody():
    world = World(PlayedEngine(replace(RECURRENT, snapshot_room=130)))
    for number in range(3):
        world.submit(number, [7] * 90 + [8 + number], 2)
    world.step()
    assert [len(step) for step in world.engine.steps] == [1]
    world.drain()
    assert not world.engine.saved
    assert len(world.finished) == 3
