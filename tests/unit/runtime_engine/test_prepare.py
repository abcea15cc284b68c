"""What is made of requests before they are queued."""

import pytest

from slm_runtime.engine.messages import Embed, EmbedRequest, GenerateRequest, Refused, Submit
from slm_runtime.engine.prepare import Prepared, PreparedEmbedding, Preparer
from slm_runtime.engine.protocol import Capabilities
from tests.unit.runtime_engine.playing import Letters

CAPABILITIES = Capabilities(
    context_length=10, rows=1, sequences=1, step_tokens=10, cells=10, embedding_tokens=4
)


class Framed(Letters):
    """Puts a token of its own before a text, and one behind it, unless they are there."""

    def __init__(self, end: int) -> None:
        self.end = end

    def add_special(self, tokens: list[int]) -> list[int]:
        tokens = super().add_special(tokens)
        return tokens if tokens[-1:] == [self.end] else [*tokens, self.end]


@pytest.mark.parametrize("end", [2, 1], ids=["two tokens", "one for both"])
def test_a_text_that_is_cut_off_stays_framed_and_fits(end: int) -> None:
    preparer = Preparer(Framed(end), CAPABILITIES)
    for text in ("abcdefg", "abcdefgh", "a" * 100):
        prepared = preparer.prepare_embedding(Embed(1, EmbedRequest(inputs=[text], truncate=True)))
        assert isinstance(prepared, PreparedEmbedding)
        (tokens,) = prepared.inputs
        assert tokens[0] == 1
        assert len(tokens) == min(len(text) + 2, 10)
        assert end == 1 or tokens[-1] == end


def test_log_probabilities_that_would_fill_memory_are_refused_before_they_are_made():
    preparer = Preparer(Letters(), CAPABILITIES)
    wish = {"prompt": ["abc"], "n": 2, "logprobs": 4}
    for most, max_tokens, tokens in ((60, None, 6), (59, None, 5), (59, 5, 5), (None, 6, 6), (59, 6, None)):
        request = GenerateRequest(**wish, max_tokens=max_tokens, most_logprobs=most)
        prepared = preparer.prepare(Submit(1, request))
        if tokens is None:
            assert isinstance(prepared, Refused)
            assert prepared.param == "max_tokens"
            assert "at most 5 tokens" in prepared.message
        else:
            assert isinstance(prepared, Prepared)
            assert prepared.limit - len(prepared.tokens) == tokens
