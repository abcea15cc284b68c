"""What is guessed ahead changes nothing of what the real engine writes, but for the steps that it takes."""

import itertools
import json
from dataclasses import replace

import pytest

from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import Constraint, GenerateRequest, Sampling, StepOutput, Submit
from slm_runtime.engine.prepare import Prepared, Preparer
from slm_runtime.engine.structs import Message

pytestmark = pytest.mark.runtime

PROMPT = "def add(left, right): return left + right\n" * 3
SCHEMA = {
    "type": "object",
    "properties": {
        "the_first_property": {"type": "boolean"},
        "second_property_name": {"enum": ["red", "blue"]},
    },
    "required": ["the_first_property", "second_property_name"],
    "additionalProperties": False,
}


class World:
    """A loop whose steps all take as long by its clock, so that every guess is made use of."""

    def __init__(self, engine):
        self._engine = engine
        self._preparer = Preparer(engine.vocabulary, engine.capabilities)
        self._sent: list[Message] = []
        ticks = itertools.count()
        self._loop = StepLoop(engine, self._sent.append, queue_limit=8, clock=lambda: next(ticks) / 1000)
        self._ids = itertools.count()

    def answer(self, known=(), **fields):
        """What it writes, and how many steps and accepted tokens that took; `known`: what it is guessed to be."""
        request = GenerateRequest(**{"prompt": [PROMPT], "max_tokens": 80, "ignore_eos": True, **fields})
        prepared = self._preparer.prepare(Submit(next(self._ids), request))
        assert isinstance(prepared, Prepared)
        self._sent.clear()
        before = self._counts()
        self._loop.submit(replace(prepared, foretold=[*known]))
        while not self._loop.idle:
            self._loop.step()
        outputs = [message for message in self._sent if isinstance(message, StepOutput)]
        deltas = [d for output in outputs for d in output.deltas]
        choices = sorted((c for output in outputs for c in output.choices), key=lambda c: c.choice)
        took = [now - then for now, then in zip(self._counts(), before, strict=True)]
        written = [
            (
                "".join(d.text for d in deltas if d.choice == choice.choice),
                [token for d in deltas if d.choice == choice.choice for token in d.tokens],
                [p.chosen.logprob for d in deltas if d.choice == choice.choice for p in d.logprobs or ()],
                choice.reason,
                choice.completion_tokens,
                choice.stop,
            )
            for choice in choices
        ]
        return written, took

    def _counts(self):
        stats = self._loop._stats()
        return stats.steps, stats.accepted_tokens


@pytest.fixture(scope="module")
def worlds(make_engine, tiny):
    """One that guesses and one that doesn't."""
    engines = [
        make_engine(tiny, parallel=4, batch_size=128, threads=1, speculation=speculation)
        for speculation in (True, False)
    ]
    yield [World(engine) for engine in engines]
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": 3},
        {"n": 3},
        {"sampling": {"repeat_penalty": 1.15, "frequency_penalty": 0.03}},
        {"sampling": {"logit_bias": {40: 1.0}}},
        {"constraint": Constraint("json_schema", json.dumps(SCHEMA)), "ignore_eos": False},
    ],
    ids=["greedy", "logprobs", "choices", "penalties", "bias", "schema"],
)
def test_the_text_is_the_same_in_fewer_steps(worlds, fields):
    fields = {**fields, "sampling": Sampling(temperature=0, **fields.get("sampling", {}))}
    guessing, without = worlds
    plain, (all_steps, none) = without.answer(**fields)
    guessed, (steps, accepted) = guessing.answer(nearly(plain[0][1]), **fields)
    assert none == 0
    for mine, other in zip(guessed, plain, strict=True):
        assert mine[2] == pytest.approx(other[2], abs=1e-3)
        assert mine[:2] + mine[3:] == other[:2] + other[3:]
    assert accepted > len(guessed) * 3
    assert steps < all_steps


def test_a_stop_string_within_a_draft_ends_it_there(worlds):
    guessing, without = worlds
    ((text, tokens, *_),), _ = without.answer(sampling=Sampling(temperature=0))
    for cut in range(40, len(text) - 8, 20):
        fields = {"sampling": Sampling(temperature=0), "stop": [text[cut : cut + 4]]}
        assert guessing.answer(nearly(tokens), **fields)[0] == without.answer(**fields)[0]


def nearly(tokens):
    """A guess that is right but for every ninth token."""
    return [token if place % 9 else 3 for place, token in enumerate(tokens, 1)]
