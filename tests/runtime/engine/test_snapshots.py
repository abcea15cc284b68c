"""Tiny models of architectures whose sequences can't be cut: the real library, what it saves, and what shares it."""

import random
import tracemalloc
from array import array

import numpy as np
import pytest

from slm_runtime.engine.protocol import Span
from slm_runtime.scheduler.plan import Sequence, carry_out, tokens_of
from slm_runtime.scheduler.scheduler import Scheduler
from tests.support.architectures import TINY
from tests.support.headers import write_tiny

pytestmark = pytest.mark.runtime

CONTEXT = 1024
DRAWN = random.Random(3)
SYSTEM, OTHER, LONG = ([DRAWN.randrange(10, 250) for _ in range(count)] for count in (300, 400, CONTEXT))
LEAST_DIFFERENCE = 5e-3
"""Of logits of about 5: a prompt that is taken in otherwise cut is rounded otherwise."""


@pytest.fixture(scope="module", params=TINY)
def engine(request, make_engine, tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", TINY[request.param])
    engine = make_engine(path, context_length=CONTEXT, parallel=4, batch_size=64, threads=1, speculation=True)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def empty(engine):
    for number in range(engine.capabilities.rows):
        engine.cut(number, 0)


def read(engine, number, tokens, start=0):
    for begin in range(start, len(tokens), 64):
        row = engine.step([Span(number, begin, array("i", tokens[begin : begin + 64]), 1)])
    return row[0].copy()


def generate(engine, scheduler, prompts, count=8):
    """What each goes on with, greedily; and how many tokens the engine took in."""
    sequences = [
        Sequence(number, 0, "", tokens_of(prompt), len(prompt) + count)
        for number, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        scheduler.submit(sequence)
    taken = 0
    while scheduler.running or scheduler.waiting:
        plan = scheduler.plan()
        carry_out(plan.operations, engine)
        rows = engine.step(plan.spans)
        taken += sum(len(span.tokens) for span in plan.spans)
        scheduler.advance(plan, 0.1)
        wanting = (each for span, each in zip(plan.spans, plan.sequences, strict=True) if span.rows)
        for sequence, row in zip(wanting, rows, strict=True):
            sequence.tokens.append(int(row.argmax()))
            if len(sequence.tokens) == sequence.limit:
                scheduler.finish(sequence)
    return [list(s.tokens[s.prompt_tokens :]) for s in sequences], taken


def test_it_goes_on_from_a_snapshot_as_if_nothing_had_been(engine):
    whole = read(engine, 0, [*SYSTEM, *OTHER])
    engine.cut(0, 0)
    read(engine, 0, SYSTEM)
    engine.save(0, 0)
    for number in range(1, 4):
        read(engine, number, LONG)
    engine.cut(0, 0)
    engine.restore(0, 0)
    engine.forget(0)
    row = read(engine, 0, [*SYSTEM, *OTHER], start=len(SYSTEM))
    np.testing.assert_allclose(row, whole, atol=LEAST_DIFFERENCE)


def test_the_same_prompt_again_gives_the_same_logits_to_the_last_bit(engine):
    """It goes on from just before its last token, which was taken in by itself the first time too."""
    read(engine, 0, SYSTEM)
    engine.save(0, 0)
    first = read(engine, 0, [*SYSTEM, 33], start=len(SYSTEM))
    engine.cut(0, 0)
    engine.restore(0, 0)
    engine.forget(0)
    np.testing.assert_array_equal(read(engine, 0, [*SYSTEM, 33], start=len(SYSTEM)), first)


def test_a_copied_sequence_and_its_source_go_on_apart(engine):
    """They share what they hold until either is past it."""
    wholes = [read(engine, 0, [*SYSTEM, *rest]) for rest in (OTHER, LONG[:400]) if engine.cut(0, 0) is None]
    engine.cut(0, 0)
    read(engine, 0, SYSTEM)
    engine.copy(0, 3, len(SYSTEM))
    rows = [
        read(engine, number, [*SYSTEM, *rest], start=len(SYSTEM))
        for number, rest in ((3, OTHER), (0, LONG[:400]))
    ]
    np.testing.assert_allclose(rows, wholes, atol=LEAST_DIFFERENCE)


def test_a_snapshot_takes_what_it_is_counted_for(engine):
    read(engine, 0, SYSTEM)
    tracemalloc.start()
    engine.save(0, 0)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == pytest.approx(engine.capabilities.snapshots.of(len(SYSTEM)), abs=2048)
    assert engine.info.memory.snapshots == engine.capabilities.snapshot_room > taken
    engine.forget(0)


def test_all_sequences_reach_the_whole_context_side_by_side(engine):
    alone = read(engine, 0, LONG)
    engine.cut(0, 0)
    for begin in range(0, CONTEXT, 16):
        part = array("i", LONG[begin : begin + 16])
        rows = engine.step([Span(number, begin, part, 1) for number in range(4)])
    np.testing.assert_allclose(rows, [alone] * 4, atol=LEAST_DIFFERENCE)


def test_nothing_is_guessed_that_could_not_be_taken_back(engine):
    assert engine.capabilities.draft_rows == 0


def test_choices_share_their_prompt_and_a_cached_one_gives_the_same_text(engine):
    prompt = [*SYSTEM, 33]
    scheduler = Scheduler(engine.capabilities)
    texts, taken = generate(engine, scheduler, [prompt] * 4)
    assert taken == len(prompt) - 1 + 4 + 4 * 7
    again, taken = generate(engine, scheduler, [prompt])
    assert taken == 1 + 7
    assert texts == again * 4


def test_prompts_share_a_system_prompt_and_give_the_same_text(engine):
    prompts = [[*SYSTEM, *OTHER[start : start + 40]] for start in range(0, 160, 40)]

    def one_by_one(scheduler_of):
        return [generate(engine, scheduler_of(), [prompt]) for prompt in prompts]

    shared = Scheduler(engine.capabilities)
    cached = one_by_one(lambda: shared)
    assert [taken for _, taken in cached] == [347, 347, 47, 47]
    for number in range(engine.capabilities.rows):
        engine.cut(number, 0)
    together, taken = generate(engine, Scheduler(engine.capabilities), prompts)
    assert taken == 300 + 4 * 47
    assert [texts for texts, _ in cached] == [[text] for text in together]
