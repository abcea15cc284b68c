"""The scheduler, where it is guessed what comes next."""

from tests.unit.runtime_engine.playing import (
    PlayedEngine,
)
from tests.unit.runtime_engine.scheduled import DRAFTS, World, alone


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
