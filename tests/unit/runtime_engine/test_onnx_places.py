"""Which rows a step computes, and when they change places."""

import itertools
import random

import pytest

from slm_runtime.engine.onnx.places import Places, Run


def test_rows_side_by_side_are_one_run():
    assert Places(8, 100).runs([3, 1, 2]) == [Run(1, 4)]


def test_a_few_idle_rows_are_computed_along_and_many_are_not():
    assert Places(8, 100).runs([0, 3]) == [Run(0, 4)]
    assert Places(8, 100).runs([0, 4]) == [Run(0, 1), Run(4, 5)]


def test_a_full_row_is_never_computed_along():
    """What that wrote would have no place behind what it holds."""
    places = Places(4, 100)
    places.lengths[1] = 100
    assert places.runs([0, 2]) == [Run(0, 1), Run(2, 3)]


def test_rows_change_places_where_enough_was_computed_for_nothing():
    places = Places(8, 100)
    places.lengths = [50, 9, 9, 60, 9, 9, 9, 9]
    for _ in range(16):
        assert places.moves([0, 3]) == []
        places.runs([0, 3])
    moves = places.moves([0, 3])
    assert len(moves) == 1
    assert set(moves[0]) & {0, 3}
    places.swapped(*moves[0])
    assert len(places.runs([places.row(0), places.row(3)])) == 1
    assert places.runs([places.row(0), places.row(3)])[0].size == 2
    assert places.moves([places.row(0), places.row(3)]) == []


def test_rows_that_lie_side_by_side_never_move():
    places = Places(4, 100)
    for _ in range(1000):
        assert places.moves([1, 2, 3]) == []
        places.runs([1, 2, 3])


@pytest.mark.parametrize("seed", range(5))
def test_each_sequence_keeps_what_it_holds_wherever_it_is(seed):
    drawn, places = random.Random(seed), Places(6, 1000)
    held, content = dict.fromkeys(range(6), 0), dict.fromkeys(range(6), 0)
    moved = 0
    for _ in range(500):
        active = drawn.sample(range(6), drawn.randint(1, 3))
        for one, other in places.moves([places.row(number) for number in active]):
            content[one], content[other] = content[other], content[one]
            places.swapped(one, other)
            moved += 1
        rows = [places.row(number) for number in active]
        runs = places.runs(rows)
        assert set(rows) <= {row for run in runs for row in range(run.start, run.end)}
        assert all(left.end <= right.start for left, right in itertools.pairwise(runs))
        for number in active:
            held[number] += 1
            places.lengths[places.row(number)] += 1
            content[places.row(number)] += 1
    assert moved
    for number, length in held.items():
        assert places.lengths[places.row(number)] == content[places.row(number)] == length
