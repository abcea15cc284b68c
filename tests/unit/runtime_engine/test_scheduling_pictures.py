"""The scheduler, of prompts with pictures in them."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_runtime.engine.protocol import Medium
from slm_runtime.scheduler.plan import Sequence, tokens_of
from tests.unit.runtime_engine.playing import (
    PlayedEngine,
    PlayedPicture,
)
from tests.unit.runtime_engine.scheduled import TIGHT, UNIFIED, World, alone


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
