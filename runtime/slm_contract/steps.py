"""How much of a prompt an engine takes in one step: one rule for who computes a step's memory and who makes it."""

from typing import Final

PROMPT_TOKENS: Final = 128
"""Of a graph of ONNX: more are no faster, and take more memory, for it gives the logits of all of them."""
LOGITS_BYTES: Final = 64 << 20
"""Of these logits, where the vocabulary is large; but for so many tokens there always is room:"""
FEWEST_TOKENS: Final = 32
FLOAT: Final = 4


def prompt_tokens(vocab_size: int) -> int:
    """Tokens of one step of a graph that gives the logits of all of them."""
    fitting = LOGITS_BYTES // max(vocab_size * FLOAT, 1)
    return min(PROMPT_TOKENS, max(FEWEST_TOKENS, fitting))


def graph_tokens(vocab_size: int, batch: int, parallel: int) -> int:
    """Tokens of one step, a token of every sequence at least."""
    return max(min(batch, prompt_tokens(vocab_size)), parallel)
