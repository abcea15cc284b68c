"""The llama.cpp engine on a tiny model: the protocol's promises, kept by the real library."""

import gc
import itertools
import random
from array import array
from collections import Counter

import numpy as np
import pytest
from gguf import PoolingType

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.protocol import NoCells, Output, Pooling, Span
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def engine(make_engine, tiny):
    engine = make_engine(tiny, parallel=4, batch_size=64, threads=1)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def empty(request):
    """Each test begins without sequences."""
    if "engine" in request.fixturenames:
        engine = request.getfixturevalue("engine")
        for number in range(engine.capabilities.sequences):
            engine.cut(number, 0)


def span(sequence, position, tokens, *, rows=1):
    return Span(sequence, position, array("i", tokens), rows)


def whole(sequence, position, tokens):
    return span(sequence, position, tokens, rows=len(tokens))


def prefill(engine, sequence, tokens):
    return engine.step([span(sequence, 0, tokens)])[0].copy()


TOKENS = [1, *range(20, 60)]


def test_it_may_log_after_a_later_engine_is_gone(make_engine, tiny, tmp_path):
    """Whose log is the library's last must not be freed while the library can still call it."""
    first = make_engine(tiny, parallel=1, batch_size=64, threads=1)
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(LoadError):
        make_engine(tmp_path / "no.gguf", parallel=1, batch_size=64, threads=1)
    gc.collect()
    first.close()


@pytest.mark.parametrize(
    ("written", "pooling"), [(None, Pooling.MEAN), (PoolingType.LAST, Pooling.LAST), (PoolingType.RANK, None)]
)
def test_embeddings_are_those_that_the_file_says_it_was_trained_for(make_engine, tmp_path, written, pooling):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", pooling=written)
    engine = make_engine(path, parallel=1, batch_size=64, threads=1)
    assert (engine.capabilities.embedding_tokens > 0) == (pooling is not None)
    assert pooling in {None, engine.capabilities.pooling}
    engine.close()


def test_a_model_that_keeps_nothing_of_what_it_read_is_refused(make_engine, tmp_path):
    path = write_tiny_gguf(tmp_path / "tiny.gguf", architecture="llada")
    with pytest.raises(LoadError, match="token by token") as refused:
        make_engine(path, parallel=1, batch_size=64, threads=1)
    assert refused.value.failure.reason == "UnsupportedArchitecture"


def test_it_says_what_it_runs(engine):
    info = engine.info
    assert info.engine == "llama.cpp"
    assert info.context_length == 512
    assert info.flash_attention
    assert info.kv_cells == engine.capabilities.cells == 2048
    assert info.vocab_size == engine.vocabulary.size
    assert "<|im_start|>" in info.chat_templates["default"]
    assert info.memory.weights > 0
    assert info.memory.kv_cache == 2048 * 2 * (32 + 32) * 2
    assert info.memory.resident > info.memory.kv_cache
    assert info.threads == 1


def test_a_bounded_cache_holds_one_request_at_least(make_engine, tiny):
    for asked, cells in ((1024, 1024), (300, 512), (256, 512)):
        engine = make_engine(tiny, parallel=4, batch_size=64, threads=1, kv_cells=asked)
        assert engine.info.kv_cells == engine.capabilities.cells == cells
        assert engine.info.context_length == 512
        engine.close()


def test_chunks_give_what_the_whole_gives(engine):
    whole = prefill(engine, 0, TOKENS)
    engine.step([span(1, 0, TOKENS[:7], rows=0)])
    chunked = engine.step([span(1, 7, TOKENS[7:])])[0]
    np.testing.assert_allclose(chunked, whole, atol=1e-3)


def test_rows_come_in_the_order_of_the_spans(engine):
    alone = [prefill(engine, 0, TOKENS[:n]) for n in (5, 9) if engine.cut(0, 0) is None]
    engine.cut(0, 0)
    rows = engine.step([span(2, 0, TOKENS[:9]), span(3, 0, TOKENS[:3], rows=0), span(0, 0, TOKENS[:5])])
    assert rows.shape == (2, engine.vocabulary.size)
    np.testing.assert_allclose(rows[0], alone[1], atol=1e-3)
    np.testing.assert_allclose(rows[1], alone[0], atol=1e-3)


def test_a_copied_prefix_is_as_good_as_a_computed_one(engine):
    whole = prefill(engine, 0, TOKENS)
    engine.copy(0, 200, 30)
    engine.cut(0, 0)
    engine.copy(200, 3, 30)
    np.testing.assert_allclose(engine.step([span(3, 30, TOKENS[30:])])[0], whole, atol=1e-3)


def test_a_cut_sequence_goes_on_from_the_cut(engine):
    whole = prefill(engine, 0, TOKENS)
    engine.step([span(0, len(TOKENS), [9, 9, 9])])
    engine.cut(0, 20)
    np.testing.assert_allclose(engine.step([span(0, 20, TOKENS[20:])])[0], whole, atol=1e-3)


def test_full_is_said_and_changes_nothing(engine):
    for sequence in range(4):
        for start in range(0, 512, 64):
            engine.step([span(sequence, start, [20] * 64, rows=0)])
    with pytest.raises(NoCells):
        engine.step([span(0, 512, [20])])
    engine.cut(3, 500)
    engine.step([span(0, 512, [20])])


@pytest.mark.parametrize("seed", range(3))
def test_every_free_cell_is_found_and_the_right_ones_are_read(make_engine, tiny, seed):
    """Sequences grow, share, are cut and go, in a store that is full most of the time."""
    engine = make_engine(tiny, context_length=128, parallel=4, batch_size=64, threads=1)
    chooser, cells, steps = random.Random(seed), itertools.count(), Counter()
    held: dict[int, list[tuple[int, int]]] = {number: [] for number in range(8)}
    """Of each sequence: its cells, each an identity and a token."""
    for _ in range(400):
        number = chooser.randrange(8)
        other = chooser.choice([n for n in held if n != number])
        kept = chooser.randrange(len(held[number]) + 1)
        match chooser.choice(("step", "step", "step", "cut", "copy")):
            case "cut":
                engine.cut(number, kept)
                del held[number][kept:]
            case "copy" if not held[other] and kept:
                engine.copy(number, other, kept)
                held[other] = held[number][:kept]
            case "step":
                some = chooser.sample(range(4), chooser.randint(1, 4))
                new = {n: [chooser.randrange(20, 90) for _ in range(chooser.randint(1, 16))] for n in some}
                spans = [span(n, len(held[n]), tokens) for n, tokens in new.items()]
                used = len({identity for sequence in held.values() for identity, _ in sequence})
                fits = used + sum(map(len, new.values())) <= engine.capabilities.cells
                steps[fits] += 1
                if not fits:
                    with pytest.raises(NoCells):
                        engine.step(spans)
                    continue
                engine.step(spans)
                for n, tokens in new.items():
                    held[n] += [(next(cells), token) for token in tokens]
    assert min(steps[True], steps[False]) > 20
    while sum(map(len, held.values())) + 8 > engine.capabilities.cells:
        longest = max(held, key=lambda n: len(held[n]))
        engine.cut(longest, 0)
        held[longest] = []
    told = {n: engine.step([span(n, len(held[n]), [5])])[0].copy() for n in range(4) if held[n]}
    for number in held:
        engine.cut(number, 0)
    for number, row in told.items():
        fresh = [*(token for _, token in held[number]), 5]
        for start in range(0, len(fresh), 64):
            wanted = engine.step([span(0, start, fresh[start : start + 64])])[0]
        # One wrong token among 500 makes a difference of at least 0.03.
        np.testing.assert_allclose(wanted, row, atol=0.025)
        engine.cut(0, 0)
    engine.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_what_others_hold_changes_nothing(make_engine, tiny, threads):
    """A store of many thousand cells, nearly all of them held, those that are free far apart."""
    engine = make_engine(tiny, context_length=4096, parallel=4, batch_size=512, threads=threads)
    drawn = random.Random(threads)

    def some(count):
        return [drawn.randrange(3, engine.vocabulary.size) for _ in range(count)]

    def read(number, tokens):
        for start in range(0, len(tokens), 512):
            row = engine.step([span(number, start, tokens[start : start + 512])])[0].copy()
        return row

    prompts = [some(length) for length in (1000, 300, 70)]
    ends = [some(40) for _ in prompts]

    def answers():
        rows = [read(number, tokens) for number, tokens in enumerate(prompts)]
        for step in range(40):
            spans = [span(n, len(prompts[n]) + step, [ends[n][step]]) for n in range(len(prompts))]
            rows += list(engine.step(spans if step % 2 else spans[:1]).copy())
            if not step % 2:
                rows += list(engine.step(spans[1:]).copy())
        for number in range(len(prompts)):
            engine.cut(number, 0)
        return np.stack(rows)

    alone = answers()
    for number in range(4, 4 + 127):
        read(3, some(128))
        engine.copy(3, number, 128)
        engine.cut(3, 0)
    for number in drawn.sample(range(4, 4 + 127), 14):
        engine.cut(number, 0)
    np.testing.assert_allclose(answers(), alone, atol=2e-3)
    engine.close()


def test_a_sliding_window_loses_no_prefix_to_others(make_engine, tmp_path):
    """llama.cpp takes cells outside of a sequence's window for others while it still looks for free ones.

    The window is so long that a cache for windows would spare little: all is kept, and can be copied and cut anywhere.
    """
    path = write_tiny_gguf(tmp_path / "sliding.gguf", blocks=6, sliding_window=200)
    engine = make_engine(path, parallel=4, batch_size=64, threads=2)
    drawn = random.Random(1)

    def some(count):
        return [drawn.randrange(10, 250) for _ in range(count)]

    def fill(number):
        for start in range(0, 2048, 64):
            engine.step([span(number, start, others[start : start + 64])])

    kept, others = some(400), some(2048)
    for position in range(400):
        spans = [span(number, position, [tokens[position]]) for number, tokens in enumerate((kept, others))]
        engine.step(spans)
    wanted = prefill(engine, 2, kept[:61])
    engine.cut(2, 0)
    for number in (2, 1):
        engine.cut(number, 0)
        with pytest.raises(NoCells):
            fill(number)
    engine.cut(2, 0)
    engine.copy(0, 3, 60)
    np.testing.assert_allclose(engine.step([span(3, 60, [kept[60]])])[0], wanted, atol=1e-4)
    engine.close()


def test_attention_in_runs_is_attention(make_engine, tiny):
    """Flash attention, which computes runs of cells at once, beside attention written out in other operations."""

    def compute(flash_attention):
        engine = make_engine(tiny, parallel=3, batch_size=64, threads=2, flash_attention=flash_attention)
        drawn = random.Random(1)
        lengths = [1, 70, 333]
        tokens = [[drawn.randrange(3, engine.vocabulary.size) for _ in range(512)] for _ in lengths]
        rows = []
        for sequence, length in enumerate(lengths):
            for begin in range(0, length, 64):
                part = tokens[sequence][begin : min(begin + 64, length)]
                rows.append(engine.step([span(sequence, begin, part)]).copy())
        for step in range(150):
            some = [s for s in range(3) if (step + s) % 4]
            spans = [span(s, lengths[s], [tokens[s][lengths[s]]]) for s in some]
            rows.append(engine.step(spans).copy())
            for sequence in some:
                lengths[sequence] += 1
        engine.close()
        return np.concatenate(rows)

    # Written out, it rounds queries and probabilities to 16 bits: 0.014 here; sums of 16 bits, as elsewhere, are 0.055 off.
    np.testing.assert_allclose(compute(True), compute(False), atol=0.06)


def test_hidden_states_come_for_every_token_and_leave_logits_as_they_were(engine):
    logits = prefill(engine, 0, TOKENS)
    tokens = TOKENS[:20]
    states = engine.step([whole(1, 0, tokens)], Output.HIDDEN_STATES).copy()
    assert states.shape == (20, engine.info.embedding_length)
    chunked = [
        engine.step([whole(2, start, tokens[start : start + 10])], Output.HIDDEN_STATES).copy()
        for start in (0, 10)
    ]
    np.testing.assert_allclose(np.concatenate(chunked), states, atol=1e-3)
    assert np.abs(states).sum(axis=1).all()
    np.testing.assert_allclose(engine.step([span(3, 0, TOKENS)])[0], logits, atol=1e-3)


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another"])
def test_scores_are_the_logits_after_each_token(engine, others):
    tokens = TOKENS[:20]
    one_by_one = [engine.step([span(0, place, [token])])[0].copy() for place, token in enumerate(tokens)]
    beside = [whole(3, 0, TOKENS[5:10])] * others
    rows = engine.step([*beside, whole(1, 0, tokens[:15])]).copy()[5 * others :]
    rest = engine.step([span(1, 15, tokens[15:], rows=3)]).copy()
    # Rounding differs with the tokens of a step.
    assert rest.shape == (3, engine.vocabulary.size)
    np.testing.assert_allclose(np.concatenate([rows, rest]), [*one_by_one[:15], *one_by_one[17:]], atol=5e-3)
    np.testing.assert_allclose(
        engine.step([span(1, 20, TOKENS[20:])])[0], prefill(engine, 2, TOKENS), atol=5e-3
    )


def test_a_step_gives_as_many_rows_as_it_promises(engine):
    most = engine.capabilities.scored_tokens
    assert engine.step([whole(0, 0, [20] * most)]).shape == (most, engine.vocabulary.size)


def test_text_round_trips(engine):
    vocabulary = engine.vocabulary
    for text in ("hello world", "größe €", "  two", "<|im_start|>user"):
        tokens = vocabulary.tokenize(text, parse_special=False)
        joined = b"".join(vocabulary.piece(token, special=False) for token in tokens).decode()
        assert joined.strip() == text.strip()
    assert len(vocabulary.tokenize("<|im_start|>", parse_special=True)) == 1
    assert vocabulary.add_special([20]) == vocabulary.add_special([1, 20]) == [1, 20]


def test_a_long_conversation_is_read_turn_by_turn(engine):
    turn = "<|im_start|>user\nhello world<|im_end|>\n"
    once = engine.vocabulary.tokenize(turn, parse_special=True)
    assert engine.vocabulary.tokenize(turn * 1000, parse_special=True) == once * 1000


def test_a_file_that_is_no_model_is_said_so(make_engine, tmp_path):
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"no model at all")
    with pytest.raises(LoadError, match=r"wrong\.gguf") as error:
        make_engine(wrong)
    assert error.value.failure.reason == "InvalidModel"
    with pytest.raises(LoadError, match="there is no model file"):
        make_engine(tmp_path / "missing.gguf")
