"""What the sampler draws, held against plain definitions."""

import itertools
from array import array
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_runtime.engine.messages import Sampling
from slm_runtime.sampling.sampler import Sampler
from slm_runtime.sampling.text import TextStream
from slm_runtime.sampling.truncation import draw, likeliest, nucleus
from tests.unit.runtime_engine.playing import Letters

PROMPT = array("i", [5, 6, 6])


def sampler(top_logprobs=None, matcher=None, choice=0, **params):
    return Sampler(
        Sampling(**params), Letters(), PROMPT, choice=choice, matcher=matcher, top_logprobs=top_logprobs
    )


def test_choices_of_any_seed_draw_differently():
    row = np.zeros(5000, np.float32)
    first = [sampler(seed=-1, choice=choice).choose(row.copy())[0] for choice in range(3)]
    assert len(set(first)) == 3
    assert first == [sampler(seed=-1, choice=choice).choose(row.copy())[0] for choice in range(3)]


def row_of(size=5000, seed=0, spread=3.0):
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def softmax(row):
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


def drawn(sampler, row, times=4000):
    counts = Counter(sampler.choose(row.copy())[0] for _ in range(times))
    return {token: count / times for token, count in counts.items()}


def matches(shares, probabilities):
    """Whether the shares are what these probabilities give, within what chance allows (5 sigma)."""
    assert set(shares) <= {token for token, p in probabilities.items() if p > 0}
    return all(
        abs(shares.get(token, 0) - p) < 5 * np.sqrt(p * (1 - p) / 4000) + 1e-3
        for token, p in probabilities.items()
    )


rows = st.builds(
    lambda size, seed, levels: np.round(row_of(size, seed), levels).astype(np.float32),
    st.integers(1, 3000),
    st.integers(0, 2**32 - 1),
    st.integers(0, 4),
)


@settings(max_examples=100)
@given(row=rows, k=st.integers(1, 300))
def test_likeliest_is_what_a_stable_sort_gives(row, k):
    found, logits = likeliest(row, k)
    assert found.tolist() == np.argsort(-row, kind="stable")[:k].tolist()
    assert (logits == row[found]).all()


def test_likeliest_copes_with_impossible_tokens():
    row = np.full(5000, -np.inf, np.float32)
    row[[7, 4000]] = 1, 2
    assert likeliest(row, 2)[0].tolist() == [4000, 7]
    assert likeliest(row, 40)[0].tolist()[:2] == [4000, 7]
    assert set(likeliest(row, 40)[0].tolist()) > {4000, 7}


@pytest.mark.parametrize("k", [1, 40, 300])
def test_likeliest_is_that_of_a_sort_on_flat_steep_and_level_rows(k):
    chooser = np.random.default_rng(0)
    for spread in (1, 8, 0.01, 0, 3):
        row = (spread * chooser.standard_normal(5000)).astype(np.float32)
        row[:100] = -np.inf
        row[200:210] = row[300]
        for each in (row, np.where(np.arange(5000) == 7, np.float32(1), -np.inf).astype(np.float32), row + 1):
            assert likeliest(each, k)[0].tolist() == np.argsort(-each, kind="stable")[:k].tolist()


@settings(max_examples=60)
@given(row=rows, top_p=st.floats(0.01, 0.999))
def test_nucleus_is_the_smallest_set_that_reaches_the_share(row, top_p):
    kept, logits = nucleus(row, 1.0, top_p)
    assert (logits == row[kept]).all()
    probabilities = softmax(row)[kept]
    assert (np.diff(probabilities) <= 1e-9).all()
    assert probabilities.sum() >= top_p - 1e-4
    assert probabilities[:-1].sum() < top_p + 1e-4


@settings(max_examples=60)
@given(row=rows)
def test_every_number_draws_a_token_and_evenly_spread_ones_draw_their_share(row):
    times = 500
    counts = np.bincount([draw(row, 1.0, (i + 0.5) / times) for i in range(times)], minlength=row.size)
    np.testing.assert_allclose(counts / times, softmax(row), atol=1.01 / times)


def test_greedy_takes_the_likeliest():
    row = row_of()
    assert sampler(temperature=0).choose(row)[0] == int(row.argmax())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_temperature_alone_draws_from_the_whole_distribution(temperature):
    row = row_of(40)
    assert matches(
        drawn(sampler(temperature=temperature, seed=1), row), dict(enumerate(softmax(row / temperature)))
    )


def test_top_k_then_top_p_with_the_temperature_first_or_last():
    row = row_of(400, spread=1)
    best = np.argsort(-row)[:20]
    for last in (False, True):
        tail = softmax(row[best] / (1 if last else 1.5))
        count = int(np.searchsorted(np.cumsum(tail), 0.6)) + 1
        kept = best[:count]
        wanted = dict(zip(kept.tolist(), softmax(row[kept] / 1.5), strict=True))
        chosen = sampler(temperature=1.5, top_k=20, top_p=0.6, temperature_last=last, seed=3)
        assert matches(drawn(chosen, row), wanted)


def test_top_p_alone_cuts_once():
    # 0.6, 0.85, 0.93 of the whole: three tokens reach 0.9. Of these three, two would.
    probabilities = np.array([0.6, 0.25, 0.08, 0.04, 0.03], np.float32)
    wanted = dict(enumerate((probabilities[:3] / 0.93).tolist()))
    assert matches(drawn(sampler(top_p=0.9, seed=2), np.log(probabilities)), wanted)


def test_min_p_keeps_what_reaches_its_share_of_the_likeliest():
    row = row_of(400)
    probabilities = softmax(row)
    kept = np.flatnonzero(probabilities >= 0.2 * probabilities.max())
    wanted = dict(zip(kept.tolist(), softmax(row[kept]), strict=True))
    assert matches(drawn(sampler(min_p=0.2, seed=4), row), wanted)
    assert matches(drawn(sampler(min_p=0.2, top_k=300, seed=4), row), wanted)


def test_typical_p_drops_the_too_likely_as_well():
    row = np.log(np.array([0.6, 0.1, 0.1, 0.1, 0.05, 0.05], np.float32))
    # Entropy is 1.3 nats; 0.1 has 2.3, 0.6 has 0.51 and is nearer.
    assert set(drawn(sampler(typical_p=0.55, seed=5), row, 500)) == {0}
    assert set(drawn(sampler(typical_p=0.75, seed=5), row, 500)) == {0, 1, 2}


def test_top_p_of_nothing_still_gives_the_likeliest():
    row = row_of()
    assert sampler(top_p=0.0).choose(row)[0] == int(row.argmax())
    assert sampler(top_p=0.0, top_k=5).choose(row)[0] == int(row.argmax())


def test_a_seed_repeats_and_choices_differ():
    def text(**more):
        one = sampler(seed=7, **more)
        return [one.choose(row_of(200, seed))[0] for seed in range(50)]

    assert text() == text()
    assert text() != text(choice=1)


def test_penalties_fall_on_what_was_generated_and_on_the_prompt_only_if_asked():
    row = np.zeros(10, np.float32)
    row[5], row[6], row[7] = 2.0, 1.9, 1.8
    own = sampler(temperature=0, presence_penalty=0.15)
    assert [own.choose(row.copy())[0] for _ in range(4)] == [5, 6, 5, 5]
    counted = sampler(temperature=0, frequency_penalty=0.15)
    assert [counted.choose(row.copy())[0] for _ in range(4)] == [5, 6, 5, 7]
    prompt_too = sampler(temperature=0, repeat_penalty=1.5, penalize_prompt=True)
    assert prompt_too.choose(row.copy())[0] == 7


def test_a_repetition_of_the_prompt_is_one_and_nothing_else():
    row = np.zeros(10, np.float32)
    row[5], row[6], row[7] = 2.0, 1.9, 1.8
    repeats = sampler(temperature=0, repeat_penalty=1.5, repeat_in_prompt=True)
    assert [repeats.choose(row.copy())[0] for _ in range(3)] == [7, 5, 5]
    present = sampler(temperature=0, presence_penalty=0.15, repeat_in_prompt=True)
    assert [present.choose(row.copy())[0] for _ in range(4)] == [5, 6, 5, 5]


def test_the_penalty_window_forgets():
    row = np.zeros(10, np.float32)
    row[5], row[6] = 2.0, 1.9
    one = sampler(temperature=0, presence_penalty=5, penalty_window=1)
    assert [one.choose(row.copy())[0] for _ in range(6)] == [5, 6, 5, 6, 5, 6]


EXTREMES = {
    "temperature": (0.0, 1e-320, 1e-6, 1e6),
    "top_k": (0, 1, 40),
    "top_p": (0.0, 1e-320, 1.0),
    "min_p": (0.0, 1e-320, 1.0),
    "typical_p": (1e-320, 1.0),
    "repeat_penalty": (1e-6, 1e6),
    "frequency_penalty": (-1e6, 1e6),
    "presence_penalty": (-1e6, 1e6),
    "temperature_last": (False, True),
}


@settings(max_examples=500)
@given(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in EXTREMES.items()}))
def test_whatever_is_let_in_draws_a_token(params):
    one = sampler(penalize_prompt=True, **params)
    for _ in range(3):
        assert 0 <= one.choose(row_of(200))[0] < 200


def test_bias_forbids_and_forces():
    row = row_of(50)
    best = int(row.argmax())
    assert sampler(temperature=0, logit_bias={best: -100.0}).choose(row.copy())[0] != best
    assert sampler(logit_bias={3: 100.0}).choose(row.copy())[0] == 3


def test_logprobs_are_the_model_s_own_whatever_is_sampled():
    row = row_of(50)
    wanted = np.log(softmax(row))
    best = np.argsort(-row)
    token, found = sampler(temperature=0, top_logprobs=3, logit_bias={int(best[0]): -100.0}).choose(
        row.copy()
    )
    assert token == best[1]
    assert found.chosen.logprob == pytest.approx(wanted[best[1]], abs=1e-5)
    assert [entry.token for entry in found.top] == best[:3].tolist()
    assert [entry.logprob for entry in found.top] == pytest.approx(wanted[best[:3]], abs=1e-5)


class Only:
    """Allows some tokens, and counts how often it was asked for all of them."""

    def __init__(self, *tokens):
        self.tokens, self.accepted, self.masks = set(tokens), [], 0

    def allows(self, token):
        return token in self.tokens

    def accept(self, token):
        self.accepted.append(token)

    def allowed(self):
        self.masks += 1
        return np.array([token in self.tokens for token in range(50)])


def test_a_constraint_is_kept_and_its_mask_made_only_when_needed():
    row = row_of(50)
    best = np.argsort(-row).tolist()
    free, bound = Only(*best[:5]), Only(best[4], best[9])
    assert sampler(temperature=0, matcher=free).choose(row.copy())[0] == best[0]
    assert sampler(temperature=0, matcher=bound).choose(row.copy())[0] == best[4]
    assert (free.masks, bound.masks) == (0, 1)
    assert bound.accepted == [best[4]]
    shares = drawn(sampler(matcher=Only(best[4], best[9]), seed=6), row, 200)
    assert set(shares) <= {best[4], best[9]}


def test_text_is_whole_characters():
    stream = TextStream([])
    pieces = ["ü".encode()[:1], "ü".encode()[1:] + "€".encode()[:2], "€".encode()[2:], b"a"]
    assert [stream.push(piece)[0] for piece in pieces] == ["", "ü", "€", "a"]


def test_text_may_begin_like_a_stop_and_go_on_otherwise():
    stream = TextStream(["STOP", "OATS"])
    assert [stream.push(piece)[0] for piece in (b"a ST", b"O", b"AT", b"!")] == ["a ", "", "ST", "OAT!"]
    assert stream.flush() == ""


def test_the_first_stop_counts():
    stream = TextStream(["world", "lo w"])
    assert stream.push(b"hel") == ("he", None)
    assert stream.push(b"lo world") == ("l", "lo w")


@settings(max_examples=200)
@given(
    text=st.text("abä€", max_size=40),
    stops=st.lists(st.text("abä€", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 120), max_size=20),
)
def test_text_is_the_same_however_it_is_cut_into_tokens(text, stops, cuts):
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream, shown, found = TextStream(stops), "", None
    for start, end in itertools.pairwise(edges):
        more, found = stream.push(data[start:end])
        shown += more
        if found is not None:
            break
    else:
        shown += stream.flush()
    places = [text.index(stop) for stop in stops if stop in text]
    if found is None:
        assert shown == text
        assert not places
    else:
        assert shown + found == text[: len(shown + found)]
        assert found in stops
