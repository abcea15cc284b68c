"""Measured figures → how many replicas a number of people needs, with what was assumed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from kubectl_slm.errors import CommandError, Exit

TOKENS_A_WORD: Final = 1.4
"""Of the bench's prompts, which are plain English words."""


@dataclass(frozen=True)
class Demand:
    """What is asked of a model."""

    people: int
    """Who ask at the same time."""
    prompt_tokens: int
    answer_tokens: int
    first_token: float
    """Seconds, at most."""


@dataclass(frozen=True)
class Capacity:
    replicas: int
    streams: int
    """Answers that each of them writes at once."""
    first_token: float
    """Seconds, of prompts as they were asked for."""
    answer: float
    """Seconds until an answer is whole."""
    assumptions: tuple[str, ...]


def capacity(bench: Mapping[str, Any], wanted: Demand) -> Capacity:
    """What suffices, by what `kubectl slm bench -o json` has measured.

    Raises
    ------
    CommandError
        A single answer alone already takes too long to begin.
    """
    rows: Sequence[Mapping[str, float]] = sorted(bench["measured"], key=lambda each: each["streams"])
    prompt = max(1.0, bench["promptWords"] * TOKENS_A_WORD)
    longer = max(1.0, wanted.prompt_tokens / prompt)
    fitting = [each for each in rows if each["firstTokenMs"] / 1000 * longer <= wanted.first_token]
    if not fitting:
        alone = rows[0]["firstTokenMs"] / 1000 * longer
        raise CommandError(
            f"one request alone waits {alone:.1f} s for its first token, and {wanted.first_token:g} s are the most",
            "take a smaller model or an accelerator, shorter prompts, or a longer --first-token",
            Exit.NO,
        )
    best = max(fitting, key=lambda each: each["streams"])
    streams = int(best["streams"])
    first = best["firstTokenMs"] / 1000 * longer
    return Capacity(
        replicas=ceil(wanted.people / streams),
        streams=streams,
        first_token=first,
        answer=first + wanted.answer_tokens / (best["tokensPerSecond"] / streams),
        assumptions=(
            f"all {wanted.people} ask at the same moment, and nothing of their prompts is shared",
            f"the first token takes {longer:.0f} times as long as of the {prompt:.0f} tokens that were measured",
            f"{streams} at once were measured on one replica; more than that weren't"
            if streams == int(rows[-1]["streams"])
            else f"{streams} at once are the most of what was measured that begin in time",
        ),
    )
