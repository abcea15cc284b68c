"""What is guessed of a text, and when a guess pays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_runtime.scheduler.drafting import Drafter, Lookup
from slm_runtime.scheduler.pace import SIZES, Pace
from slm_runtime.scheduler.plan import tokens_of

CODE = [*range(100, 160)]


def expected(lookup: Lookup, tokens: list[int], most: int = 4) -> list[int]:
    lookup.take(tokens_of(tokens))
    return list(lookup.expected(most))


def test_what_followed_the_same_three_tokens_is_expected_again():
    lookup = Lookup(len(CODE))
    assert expected(lookup, [*CODE, 7, 120, 121, 122]) == [123, 124, 125, 126]
    assert lookup.run == 3
    assert expected(lookup, [*CODE, 7, 120, 121, 122, 123]) == [124, 125, 126, 127]
    assert lookup.run == 4


def test_two_tokens_are_too_few_to_go_by():
    assert expected(Lookup(len(CODE)), [*CODE, 7, 121, 122]) == []


def test_the_latest_place_counts():
    text = [1, 2, 3, 50, 51, 1, 2, 3, 60, 61, 1, 2, 3]
    assert expected(Lookup(len(text)), text, 2) == [60, 61]


def test_after_a_changed_word_the_text_goes_on_beside_it():
    lookup = Lookup(len(CODE))
    expected(lookup, [*CODE, 7, 120, 121, 122])
    assert expected(lookup, [*CODE, 7, 120, 121, 122, 9]) == [124, 125, 126, 127]
    assert lookup.run == 0


def test_what_is_foretold_is_expected_from_its_first_token_on():
    lookup = Lookup(3, foretold=CODE)
    assert expected(lookup, [1, 2, 3]) == CODE[:4]
    assert expected(lookup, [1, 2, 3, *CODE[:20]]) == CODE[20:24]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300))
def test_what_a_place_agreed_with_is_really_there(text):
    lookup = Lookup(0)
    for end in range(1, len(text) + 1):
        guess = expected(lookup, text[:end], 3)
        followed = text[:end][-lookup.run :] + guess
        if lookup.run and guess:
            assert any(text[at : at + len(followed)] == followed for at in range(end))


def test_how_likely_a_guess_is_follows_what_became_of_earlier_ones():
    def likely(answer: list[int]) -> float:
        drafter = Drafter(len(CODE))
        for end in range(len(answer)):
            drafter.guess(tokens_of(CODE + answer[:end]), 7)
        return drafter.guess(tokens_of(CODE + answer), 7)[1]

    assert likely(CODE[:40]) > 0.9
    assert likely([token for other in range(20) for token in (*CODE[other : other + 3], 9)]) < 0.4


def test_what_a_grammar_forces_comes_first():
    drafter = Drafter(len(CODE), forced=lambda: [5, 6, 7])
    guess, likely = drafter.guess(tokens_of([*CODE, 120, 121, 122]), 2)
    assert list(guess) == [5, 6]
    assert likely > 0.8


def measured(seconds: dict[int, float], streams: int = 1) -> Pace:
    """Steps of so many tokens took so long."""
    pace, who = Pace(), tuple(range(streams))
    pace.saw(who, 0, seconds[streams])
    for tokens, took in seconds.items():
        if tokens > streams:
            pace.saw(who, tokens - streams, took)
    return pace


FLAT = {1 + size: 0.01 for size in (0, *SIZES)}
LINEAR = {1 + size: 0.01 * (1 + size) for size in (0, *SIZES)}
HALF = {1 + size: 0.01 * (1 + size / 2) for size in (0, *SIZES)}


@pytest.mark.parametrize(
    ("seconds", "likely", "size"),
    [(FLAT, 0.3, 31), (LINEAR, 0.99, 0), (HALF, 0.4, 0), (HALF, 0.7, 1), (HALF, 0.9, 3), (HALF, 0.99, 15)],
)
def test_how_much_is_drafted_follows_from_cost_and_chance(seconds, likely, size):
    assert measured(seconds).best([(40, likely)], 31) == [size]


def test_a_draft_is_no_longer_than_what_is_guessed_and_what_there_is_room_for():
    pace = measured(FLAT)
    assert pace.best([(5, 0.99)], 31) == [3]
    assert pace.best([(40, 0.99)], 2) == [1]
    assert pace.best([(0, 0.99)], 31) == [0]


def test_the_likeliest_guesses_come_first():
    pace = measured({2: 0.01, 3: 0.01, 5: 0.01, 9: 0.03}, streams=2)
    assert pace.best([(7, 0.1), (7, 0.95)], 7) == [0, 3]


def test_where_tokens_of_many_streams_fill_a_step_drafts_don_t_pay():
    steps = {8: 0.04, 9: 0.045, 11: 0.055, 15: 0.075, 23: 0.115, 39: 0.195}
    assert measured(steps, streams=8).best([(15, 0.8)] * 8, 24) == [0] * 8


def test_other_streams_are_measured_anew():
    pace = measured(FLAT)
    assert pace.knows((0,))
    assert not pace.knows((1,))
    for _ in range(64):
        pace.saw((0,), 7, 0.01)
    assert not pace.knows((0,)), "a step without drafts shows what they are worth by now"


def test_a_bad_moment_is_forgotten():
    pace = measured({**FLAT, 8: 5.0, 16: 5.0, 32: 5.0, 4: 5.0, 2: 5.0})
    assert pace.best([(40, 0.9)], 31) == [0]
    for _ in range(20_000):
        pace.saw((0,), 0, 0.01)
    assert pace.best([(40, 0.9)], 31) != [0]
