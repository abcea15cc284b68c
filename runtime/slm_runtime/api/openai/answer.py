"""Pieces of OpenAI's answers that its endpoints share."""

import codecs
from collections.abc import Iterable
from typing import Any

import msgspec

from slm_runtime.engine.messages import ScoredInput, TokenLogprob, TokenLogprobs, Usage


def usage(used: Usage, reasoning_tokens: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": used.accepted_tokens,
            "rejected_prediction_tokens": used.rejected_tokens,
        },
    }


def chat_logprobs(tokens: Iterable[TokenLogprobs]) -> dict[str, Any]:
    content = [
        # As text each takes a tenth of the memory.
        msgspec.Raw(
            msgspec.json.encode(
                {**_logprob(token.chosen), "top_logprobs": [_logprob(one) for one in token.top]}
            )
        )
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    # A token may be part of a character: `bytes` is exact, `token` is for people.
    return {
        "token": token.text.decode(errors="replace"),
        "logprob": _finite(token.logprob),
        "bytes": list(token.text),
    }


class _Places:
    """Where tokens begin in the text that they make together: in characters, of which one may have several tokens."""

    def __init__(self, offset: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._next = offset

    def of(self, tokens: list[bytes]) -> list[int]:
        places = []
        for token in tokens:
            places.append(self._next)
            self._next += len(self._decoder.decode(token))
        return places


class CompletionLogprobs:
    """The older shape, of /v1/completions: four lists side by side. One choice's tokens, as they come."""

    def __init__(self, offset: int = 0) -> None:
        """`offset`: characters of the choice's text that come before."""
        self._places = _Places(offset)

    def of(self, tokens: list[TokenLogprobs]) -> dict[str, Any]:
        return {
            "tokens": [token.chosen.text.decode(errors="replace") for token in tokens],
            "token_logprobs": [_finite(token.chosen.logprob) for token in tokens],
            # The token itself is always there, and counts where others read alike, as parts of characters do.
            "top_logprobs": [
                msgspec.Raw(
                    msgspec.json.encode(
                        {
                            one.text.decode(errors="replace"): _finite(one.logprob)
                            for one in [*reversed(token.top), token.chosen]
                        }
                    )
                )
                for token in tokens
            ],
            "text_offset": self._places.of([token.chosen.text for token in tokens]),
        }


def prompt_logprobs(prompt: ScoredInput, text: str) -> dict[str, Any]:
    """In the same shape, of a prompt that is echoed as `text`.

    Nothing comes before the first token: null is what it has. What the engine put before the text has no width.
    """
    pieces = [prompt.first, *(token.chosen.text for token in prompt.rest)]
    before = max(0, b"".join(pieces).decode(errors="replace").rfind(text))
    rest = CompletionLogprobs().of(prompt.rest)
    return {
        "tokens": [prompt.first.decode(errors="replace"), *rest["tokens"]],
        "token_logprobs": [None, *rest["token_logprobs"]],
        "top_logprobs": [None, *rest["top_logprobs"]],
        "text_offset": [min(max(0, place - before), len(text)) for place in _Places().of(pieces)],
    }


def _finite(logprob: float) -> float:
    # JSON has no infinity; OpenAI writes this for "impossible".
    return max(logprob, -9999.0)
