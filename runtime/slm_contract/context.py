"""How long a context is where nobody asks for one: one rule for who computes its memory and for who runs it."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from slm_contract.report import ModelFacts

DEFAULT: Final = 8192
"""Tokens a request may hold where neither the deployment nor the model asks for less."""
ENCODER: Final = 2048
"""Likewise of an encoder, whose buffers are made for the longest text."""


def default_context(facts: "ModelFacts") -> int:
    """Tokens a request may hold where nobody says how many."""
    most = ENCODER if facts.encoder else DEFAULT
    return min(facts.context_length or most, most)


def longest_context(facts: "ModelFacts") -> int | None:
    """Tokens that the model was trained for, or that its RoPE scaling reaches; None where its header doesn't say.

    Of an encoder's positions those beyond what it was trained for may be missing.
    """
    if facts.encoder:
        return facts.context_length or None
    return max(facts.context_length, facts.scaled_context_length or 0) or None
