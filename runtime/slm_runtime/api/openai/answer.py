"""Pieces of OpenAI's answers that its endpoints share."""

from typing import Any, Final

from slm_runtime.engine.messages import FinishReason, TokenLogprob, TokenLogprobs, Usage

FINISH: Final[dict[FinishReason, str]] = {"stop": "stop", "length": "length"}
"""The engine's reasons that are answers; the others are errors."""


def usage(used: Usage, reasoning_tokens: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat_logprobs(tokens: list[TokenLogprobs]) -> dict[str, Any]:
    content = [
        {**_logprob(token.chosen), "top_logprobs": [_logprob(one) for one in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    # A token may be part of a character: `bytes` is exact, `token` is for people.
    return {
        "token": token.text.decode(errors="replace"),
        "logprob": _finite(token.logprob),
        "bytes": list(token.text),
    }


def completion_logprobs(tokens: list[TokenLogprobs], offset: int = 0) -> dict[str, Any]:
    """The older shape, of /v1/completions: four lists side by side."""
    texts = [token.chosen.text.decode(errors="replace") for token in tokens]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [_finite(token.chosen.logprob) for token in tokens],
        "top_logprobs": [
            {one.text.decode(errors="replace"): _finite(one.logprob) for one in token.top} for token in tokens
        ],
        "text_offset": offsets,
    }


def total(used: list[Usage]) -> Usage:
    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in used),
        cached_tokens=sum(one.cached_tokens for one in used),
        completion_tokens=sum(one.completion_tokens for one in used),
    )


def _finite(logprob: float) -> float:
    # JSON has no infinity; OpenAI writes this for "impossible".
    return max(logprob, -9999.0)
