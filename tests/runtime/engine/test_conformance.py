"""What every engine that is driven step by step promises the scheduler, kept by the real ones."""

import json
import random

import numpy as np
import pytest

from slm_runtime.engine.messages import Constraint, Sampling
from slm_runtime.engine.protocol import NoCells
from tests.runtime.engine.conforming import ENGINES, Served, empty, make, span

pytestmark = pytest.mark.runtime

TOKENS = [1, *range(20, 60)]
ROUNDING = {"cpu": 1e-3, "vulkan": 0.05}
"""Of logits. GPUs sum with 16 bits, and in another order for another number of rows; one wrong token in a context moves some
logit by 0.25."""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tmp_path_factory):
    made = make(request.param, tmp_path_factory.mktemp(request.param), parallel=6, batch_size=64)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def begin(engine):
    """Each test begins without sequences."""
    empty(engine)


def take_in(engine, sequence, tokens, position=0, *, rows=1):
    """In as many steps as it takes; the last one's rows."""
    size = engine.capabilities.step_tokens
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        last = start + len(part) == len(tokens)
        given = engine.step([span(sequence, position + start, part, rows=rows if last else 0)])
    return given.copy()


def fresh(engine, tokens):
    """What the model thinks of the token after these, told by a sequence that holds nothing else."""
    empty(engine)
    return take_in(engine, 0, tokens)[0]


def same(engine, rows, expected):
    np.testing.assert_allclose(rows, expected, atol=ROUNDING[engine.info.provider])


def test_a_row_is_as_wide_as_the_vocabulary(engine):
    assert engine.step([span(0, 0, TOKENS)]).shape == (1, engine.vocabulary.size)
    assert engine.step([span(1, 0, TOKENS, rows=0)]).shape[0] == 0


@pytest.mark.parametrize("size", [1, 7, 40])
def test_chunks_give_what_the_whole_gives(engine, size):
    whole = fresh(engine, TOKENS)
    for start in range(0, len(TOKENS), size):
        rows = engine.step([span(1, start, TOKENS[start : start + size])])
    same(engine, rows[0], whole)


def test_rows_may_be_written_to_and_come_in_the_order_of_the_spans(engine):
    lengths = {2: 9, 0: 5, 4: 17, 5: 1}
    alone = {number: fresh(engine, [*TOKENS[:length], 9]) for number, length in lengths.items()}
    engine.cut(0, 0)
    for number, length in lengths.items():
        take_in(engine, number, TOKENS[:length], rows=0)
    rows = engine.step([span(number, length, [9]) for number, length in lengths.items()])
    for row, number in zip(rows, lengths, strict=True):
        same(engine, row, alone[number])
    rows[:] = 0


def test_what_takes_no_part_in_a_step_stays_as_it_is(engine):
    """However long others go on around it, and whichever they are."""
    held = {number: TOKENS[: 6 + number] for number in range(6)}
    for number, tokens in held.items():
        take_in(engine, number, tokens, rows=0)
        held[number] = list(tokens)
    drawn = random.Random(5)
    for step in range(160):
        active = [0, 3] if step < 60 else drawn.sample(range(6), drawn.randint(1, 4))
        engine.step([span(number, len(held[number]), [20 + step % 40]) for number in active])
        for number in active:
            held[number].append(20 + step % 40)
    told = {
        number: engine.step([span(number, len(tokens), [7])])[0].copy() for number, tokens in held.items()
    }
    for number, row in told.items():
        same(engine, row, fresh(engine, [*held[number], 7]))


def test_a_copied_prefix_is_as_good_as_a_computed_one(engine):
    whole = fresh(engine, TOKENS)
    engine.copy(0, 3, 30)
    engine.cut(0, 0)
    same(engine, take_in(engine, 3, TOKENS[30:], 30)[0], whole)


def test_a_copy_and_its_source_go_on_apart(engine):
    ends = [fresh(engine, [*TOKENS, last, 9]) for last in (5, 6)]
    engine.cut(0, 0)
    take_in(engine, 1, TOKENS, rows=0)
    engine.copy(1, 4, len(TOKENS))
    engine.step([span(1, len(TOKENS), [5]), span(4, len(TOKENS), [6])])
    rows = engine.step([span(1, len(TOKENS) + 1, [9]), span(4, len(TOKENS) + 1, [9])])
    for row, expected in zip(rows, ends, strict=True):
        same(engine, row, expected)


def test_a_cut_sequence_goes_on_from_the_cut(engine):
    whole = fresh(engine, TOKENS)
    engine.step([span(0, len(TOKENS), [9])])
    engine.cut(0, 20)
    same(engine, take_in(engine, 0, TOKENS[20:], 20)[0], whole)


def test_a_freed_number_begins_anew(engine):
    whole = fresh(engine, TOKENS)
    take_in(engine, 2, [50] * 100, rows=0)
    engine.cut(2, 0)
    same(engine, take_in(engine, 2, TOKENS)[0], whole)


def test_each_token_of_a_prompt_has_its_row(engine):
    tokens = TOKENS[:16]
    expected = [fresh(engine, tokens[:end]) for end in range(1, 17)]
    engine.cut(0, 0)
    assert engine.capabilities.scored_tokens >= 16
    same(engine, take_in(engine, 1, tokens, rows=16), expected)


def test_a_sequence_holds_a_whole_context(engine):
    """A full one beside others that go on: nothing is written behind its end, nor into it."""
    length = engine.capabilities.context_length
    tokens = [20 + place % 40 for place in range(length)]
    whole = take_in(engine, 1, tokens)[0]
    take_in(engine, 0, TOKENS, rows=0)
    take_in(engine, 2, TOKENS, rows=0)
    rows = engine.step([span(0, len(TOKENS), [9]), span(2, len(TOKENS), [9])]).copy()
    same(engine, rows[0], rows[1])
    engine.cut(1, length - 1)
    same(engine, engine.step([span(1, length - 1, tokens[-1:])])[0], whole)


def test_there_is_room_for_all_whole_and_more_is_refused_where_it_is_shared(engine):
    cells, length = engine.capabilities.cells, engine.capabilities.context_length
    for number in range(6):
        take_in(engine, number, [20] * length, rows=0)
    if cells is not None:
        assert cells == 6 * length
        with pytest.raises(NoCells):
            engine.step([span(0, length, [20])])


def test_texts_come_back_as_they_went(engine):
    vocabulary = engine.vocabulary
    for text in ("a word\n\tand  more", "Grüße, 漢字 und 😀", "\x00\x7f", "<|im_start|>user<|im_end|>"):
        tokens = vocabulary.tokenize(text, parse_special=False)
        assert not any(vocabulary.is_special(token) for token in tokens)
        assert (
            b"".join(vocabulary.piece(token, special=False) for token in tokens).decode().lstrip(" ") == text
        )
    marked = vocabulary.tokenize("<|im_start|>user", parse_special=True)
    assert vocabulary.is_special(marked[0])
    assert vocabulary.piece(marked[0], special=True) == b"<|im_start|>"
    assert vocabulary.piece(marked[0], special=False) == b""
    assert vocabulary.tokenize("half a \ud83d character", parse_special=True)
    assert vocabulary.end_tokens
    assert vocabulary.eos in vocabulary.end_tokens
    whole = vocabulary.add_special(marked)
    assert vocabulary.add_special(whole) == whole


PROMPTS = [
    f"<|im_start|>user\nTell me of {word}, please." for word in ("cats", "the sea", "x" * 90, "a", "b", "c")
]


def test_each_gets_the_text_it_gets_alone(engine):
    alone = Served(engine)
    for number, prompt in enumerate(PROMPTS):
        alone.ask(number, prompt, ignore_eos=True)
        alone.drain()
    together = Served(engine)
    for number, prompt in enumerate(PROMPTS * 2):
        together.ask(number, prompt, ignore_eos=True, max_tokens=30 + number)
        together.loop.step()
    together.drain()
    for number in range(2 * len(PROMPTS)):
        count = min(40, 30 + number)
        assert together.tokens[number][:count] == alone.tokens[number % len(PROMPTS)][:count]
    assert set(together.reasons.values()) == {"length"}


def test_a_conversation_goes_on_from_what_is_held(engine):
    served = Served(engine)
    served.ask(0, PROMPTS[0], ignore_eos=True)
    served.drain()
    assert served.cached[0] == 0
    served.ask(1, PROMPTS[0] + " And more of them?", ignore_eos=True)
    served.ask(2, PROMPTS[0] + " No more of them?", ignore_eos=True, n=3)
    served.drain()
    assert served.cached[1] > 20
    assert served.cached[2] > 20
    again = Served(engine)
    again.ask(1, PROMPTS[0] + " And more of them?", ignore_eos=True)
    again.drain()
    assert again.tokens[1] == served.tokens[1]


def test_structured_output_matches_whatever_the_model_wants(engine):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "people": {"type": "integer", "maximum": 99},
        },
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    served, hot = Served(engine), Sampling(temperature=1.5, seed=3)
    asked = [Constraint("json_schema", json.dumps(schema)), Constraint("regex", "[0-9]{4}-[0-9]{2}")]
    for number, constraint in enumerate(asked):
        served.ask(number, "When?", sampling=hot, max_tokens=400, constraint=constraint)
    served.drain()
    assert set(json.loads(served.text[0])) == {"city", "people"}
    assert len(served.text[1]) == 7
    assert set(served.reasons.values()) == {"stop"}
