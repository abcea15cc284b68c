"""The step loop on the deterministic engine: what it sends for requests that only read their inputs."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from slm_runtime.engine.generation import GenerationState
from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import (
    Busy,
    Embedded,
    EmbedRequest,
    GenerateRequest,
    Refused,
    Sampling,
    Scored,
    ScoredInput,
    ScoreRequest,
    StepOutput,
)
from slm_runtime.engine.prepare import Prepared, PreparedEmbedding, PreparedScoring
from slm_runtime.engine.protocol import Capabilities, Pooling, Tokens
from slm_runtime.engine.structs import Message
from slm_runtime.sampling.logprobs import logprobs
from slm_runtime.scheduler.plan import tokens_of
from tests.unit.runtime_engine.playing import Letters, PlayedEngine, next_token, row_of

CAPABILITIES = Capabilities(
    context_length=200,
    rows=4,
    sequences=12,
    step_tokens=64,
    cells=800,
    embedding_tokens=16,
    scored_tokens=16,
)
LONG, SHORT, SINGLE = (tokens_of(t) for t in ([5, *range(3, 50)], [7, *range(3, 40)], [9]))
SECOND_GIVES_WAY = [False, False, True, True]


class World:
    """A loop, and all that it sent. `refusals` says of each step whether it finds no cells."""

    def __init__(self, refusals: Sequence[bool] = (), **capabilities: Any) -> None:
        self.sent: list[Message] = []
        coming = iter(refusals)
        self.engine = PlayedEngine(replace(CAPABILITIES, **capabilities), refuse=lambda: next(coming, False))
        ticks = itertools.count()
        # Each step takes as long as any other.
        self.loop = StepLoop(self.engine, self.sent.append, queue_limit=8, clock=lambda: next(ticks) / 1000)

    def score(self, identity: int, *inputs: Tokens, top: int = 2) -> None:
        self.loop.score(PreparedScoring(identity, ScoreRequest(inputs=[], top=top), list(inputs)))

    def drain(self, steps: int = 500) -> None:
        for _ in range(steps):
            if self.loop.idle:
                return
            self.loop.step()
        raise AssertionError("it doesn't come to an end")

    def answers(self) -> list[Message]:
        return [message for message in self.sent if isinstance(message, Embedded | Scored | Refused | Busy)]

    @property
    def preemptions(self) -> int:
        outputs = [message.stats for message in self.sent if isinstance(message, StepOutput)]
        return next(stats.preemptions for stats in reversed(outputs) if stats is not None)


def scored(tokens: Tokens, top: int = 2) -> ScoredInput:
    """From the row after each prefix, one by one."""
    rest = [
        logprobs(row_of(tokens[:end]), tokens[end], top, Letters())  # type: ignore[arg-type]
        for end in range(1, len(tokens))
    ]
    return ScoredInput(Letters().piece(tokens[0], special=True), rest)


@pytest.mark.parametrize(
    ("pooling", "of"),
    [
        (Pooling.MEAN, lambda tokens: [sum(tokens) / len(tokens), (len(tokens) - 1) / 2]),
        (Pooling.LAST, lambda tokens: [tokens[-1], len(tokens) - 1]),
    ],
)
@pytest.mark.parametrize("refusals", [[], SECOND_GIVES_WAY], ids=["room", "shortage"])
def test_an_embedding_is_pooled_even_if_it_gave_way(refusals, pooling, of):
    world = World(refusals, pooling=pooling)
    world.loop.embed(PreparedEmbedding(1, EmbedRequest(inputs=[], normalize=False), [LONG, SHORT]))
    world.drain()
    assert world.preemptions == bool(refusals)
    (embedded,) = world.answers()
    for vector, tokens in zip(embedded.vectors, [LONG, SHORT], strict=True):
        assert np.frombuffer(vector, "<f4") == pytest.approx(of(tokens))


@pytest.mark.parametrize("refusals", [[], SECOND_GIVES_WAY], ids=["room", "shortage"])
def test_each_token_s_score_is_from_the_row_before_it_even_if_it_gave_way(refusals):
    world = World(refusals)
    world.score(1, LONG, SINGLE, SHORT)
    world.drain()
    assert world.preemptions == bool(refusals)
    assert world.answers() == [Scored(1, [scored(LONG), scored(SINGLE), scored(SHORT)])]


def test_what_has_nothing_to_be_computed_is_answered_at_once():
    world = World()
    world.score(1, SINGLE)
    assert world.loop.idle
    assert world.answers() == [Scored(1, [ScoredInput(Letters().piece(9, special=True), [])])]


def test_what_is_cancelled_half_way_is_forgotten_and_others_go_on():
    world = World()
    world.score(1, LONG)
    world.score(2, SHORT, top=0)
    world.loop.step()
    world.loop.step()
    world.loop.cancel(1)
    world.drain()
    assert world.answers() == [Scored(2, [scored(SHORT, top=0)])]


def test_a_full_queue_is_said_so():
    world = World()
    for number in range(8):
        world.score(number, LONG)
    world.score(8, SHORT)
    (busy,) = world.answers()
    assert isinstance(busy, Busy)
    assert (busy.id, busy.waiting) == (8, 8)


def test_a_request_with_many_inputs_leaves_room_for_others():
    world = World()
    world.score(1, *[LONG] * 20)
    world.score(2, SHORT)
    world.drain()
    first, second = world.answers()
    assert isinstance(first, Scored)
    assert isinstance(second, Scored)
    assert {first.id, second.id} == {1, 2}


def test_what_waits_takes_only_so_much_memory():
    world = World()
    for number in range(3):
        world.score(number, *[LONG] * 25_000)
    (busy,) = world.answers()
    assert isinstance(busy, Busy)
    assert (busy.id, busy.waiting) == (2, 2)
    assert busy.retry_after > 0


def test_the_choices_of_a_request_share_its_prompt_while_they_wait():
    world = World(context_length=100_002, cells=400_000, step_tokens=100_000)
    prompt = tokens_of([3] * 100_000)
    for number in range(3):
        world.loop.submit(Prepared(number, GenerateRequest(prompt=[], n=128), prompt, 100_002, None))
    assert not world.answers()
    first, *others = world.loop._generations[0].sequences
    while len(first.tokens) == 100_000:
        world.loop.step()
    assert {len(other.tokens) for other in others} == {100_000}


def test_a_row_that_gives_no_token_ends_its_own_request_only():
    request = GenerateRequest(prompt=[], sampling=Sampling(top_k=5))
    generation = GenerationState(Prepared(1, request, LONG, 100, None), Letters(), 0.0)  # type: ignore[arg-type]
    (sequence,) = generation.sequences
    output = StepOutput()
    assert generation.choose(sequence, np.full(300, np.nan, np.float32), 0.0, output)
    assert not generation.open
    assert [choice.reason for choice in output.choices] == ["error"]
    assert "no token can be chosen" in (generation.finish(0.0).message or "")


def test_what_finds_no_room_even_alone_is_refused():
    world = World([True] * 50)
    world.score(1, LONG)
    world.drain()
    (refused,) = world.answers()
    assert isinstance(refused, Refused)
    assert "no room" in refused.message


def test_scores_come_beside_a_generation_and_leave_its_text_alone():
    def text(*inputs: Tokens) -> str:
        world = World()
        request = GenerateRequest(prompt=[], sampling=Sampling(temperature=0))
        world.loop.submit(Prepared(1, request, SHORT, len(SHORT) + 40, None))
        if inputs:
            world.score(2, *inputs)
        world.drain()
        outputs = [message for message in world.sent if isinstance(message, StepOutput)]
        assert [answer.inputs for answer in world.answers()] == [[scored(i) for i in inputs]] * bool(inputs)
        return "".join(delta.text for output in outputs for delta in output.deltas)

    assert text(LONG, SHORT) == text()


class Answered:
    """What a request was answered, alone on a loop, step by step."""

    def __init__(self, request: GenerateRequest, tokens: int = 60, foretold: int = 0) -> None:
        """`foretold`: of how many tokens it is known that they come, but for every ninth."""
        held = list(SHORT)
        for _ in range(foretold):
            held.append(next_token(held))
        guesses = [token if place % 9 else 3 for place, token in enumerate(held[len(SHORT) :], 1)]
        world = World(draft_rows=16)
        world.loop.submit(Prepared(1, request, SHORT, len(SHORT) + tokens, None, foretold=guesses))
        world.drain()
        outputs = [message for message in world.sent if isinstance(message, StepOutput)]
        deltas = [delta for output in outputs for delta in output.deltas]
        self.steps = len(world.engine.steps)
        self.text = ["".join(d.text for d in deltas if d.choice == choice) for choice in range(request.n)]
        deltas.sort(key=lambda delta: delta.choice)
        self.tokens = [token for delta in deltas for token in delta.tokens]
        self.logprobs = [each for delta in deltas for each in delta.logprobs or ()]
        self.choices = sorted(
            (choice for output in outputs for choice in output.choices), key=lambda choice: choice.choice
        )
        (self.finished,) = [finished for output in outputs for finished in output.finished]
        self.stats = next(output.stats for output in reversed(outputs) if output.stats is not None)
        self.held = world.engine.cells_used

    def outcome(self) -> tuple[object, ...]:
        return self.text, self.tokens, self.logprobs, self.choices, self.finished.usage.completion_tokens


GREEDY = Sampling(temperature=0)


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest(prompt=[], sampling=GREEDY),
        GenerateRequest(prompt=[], sampling=GREEDY, logprobs=2),
        GenerateRequest(
            prompt=[], sampling=Sampling(temperature=0, repeat_penalty=1.3, presence_penalty=0.2)
        ),
        GenerateRequest(prompt=[], sampling=Sampling(temperature=0, logit_bias={7: 0.5})),
        GenerateRequest(prompt=[], sampling=GREEDY, n=3),
    ],
    ids=["greedy", "logprobs", "penalties", "bias", "three choices"],
)
def test_a_text_is_the_same_with_drafts_and_comes_in_fewer_steps(request_):
    plain, drafted = Answered(request_), Answered(request_, foretold=60)
    assert drafted.outcome() == plain.outcome()
    assert drafted.stats.generated_tokens == plain.stats.generated_tokens == 60 * request_.n
    assert drafted.stats.accepted_tokens > 0
    assert drafted.steps < plain.steps
    used = drafted.finished.usage
    assert used.accepted_tokens == drafted.stats.accepted_tokens
    assert used.rejected_tokens == drafted.stats.drafted_tokens - used.accepted_tokens
    assert plain.finished.usage.accepted_tokens == plain.finished.usage.rejected_tokens == 0
    assert drafted.held == plain.held


def test_a_stop_within_a_draft_ends_the_text_there():
    whole = Answered(GenerateRequest(prompt=[], sampling=GREEDY))
    for cut in range(20, 40):
        stop = whole.text[0][cut : cut + 3]
        for request in (
            GenerateRequest(prompt=[], sampling=GREEDY, stop=[stop]),
            GenerateRequest(prompt=[], sampling=GREEDY, stop_tokens=[whole.tokens[cut]]),
        ):
            assert Answered(request, foretold=60).outcome() == Answered(request).outcome()


def test_nothing_is_guessed_of_what_has_a_seed():
    answered = Answered(GenerateRequest(prompt=[], sampling=Sampling(temperature=0, seed=7)), foretold=60)
    assert answered.stats.drafted_tokens == 0
