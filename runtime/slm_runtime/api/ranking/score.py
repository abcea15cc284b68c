"""POST /v1/score, /score: vLLM's way to ask for the scores of pairs, unsorted."""

import secrets
import time

import msgspec

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.ranking.pairs import parse, probability, rank
from slm_runtime.api.serving import Serving


class ScoreRequest(msgspec.Struct, kw_only=True):
    """What else vLLM's clients send has no effect."""

    text_1: str | list[str]
    text_2: str | list[str]
    model: str | None = None
    truncate_prompt_tokens: int | None = None
    use_activation: bool | None = None
    """False: the model's own numbers, of any size."""


async def create(serving: Serving, exchange: Exchange) -> None:
    document = await exchange.json()
    for name, newer in (("text_1", "queries"), ("text_2", "documents")):
        if name not in document and newer in document:
            document[name] = document[newer]
    wanted = parse(document, ScoreRequest)
    first, second = _texts(wanted.text_1), _texts(wanted.text_2)
    if len(first) not in (1, len(second)):
        raise BadRequest(
            f"'text_1' holds {len(first)} texts and 'text_2' {len(second)}: "
            "send one in 'text_1', or as many as in 'text_2'.",
            param="text_1",
        )
    ranked = await rank(
        serving,
        exchange,
        first,
        second,
        model=wanted.model,
        truncate=wanted.truncate_prompt_tokens is not None,
        param="text_2",
    )
    scores = ranked.scores if wanted.use_activation is False else list(map(probability, ranked.scores))
    tokens = ranked.prompt_tokens
    await exchange.respond_json(
        {
            "id": f"score-{secrets.token_hex(12)}",
            "object": "list",
            "created": int(time.time()),
            "model": serving.name,
            "data": [
                {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _texts(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given
