"""Pieces of OpenAI's answers that its endpoints share."""

from typing import Any, Final

from slm_runtime.engine.messages import FinishReason, TokenLogprob, TokenLogprobs, Usage

FINISH: Final[dict[FinishReason, str]] = {"stop": "stop", "length": "length"}
"""The engine's reasons that are answers; the others are errors."""


def usage(used: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
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
        "logprob": max(token.logprob, -9999.0),
        "bytes": list(token.text),
    }
