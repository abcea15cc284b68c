"""Scores for pairs of texts, as every protocol's endpoint needs them."""

import math
import time
from typing import Any, Final, TypeVar

import msgspec

from slm_runtime.api.answering import REQUEST_SECONDS, cancelled_on_disconnect
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai.fields import invalid
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import Ranked, RankRequest

DOCUMENTS: Final = 2048
"""Of one request."""

_Request = TypeVar("_Request", bound=msgspec.Struct)


def parse(document: dict[str, Any], kind: type[_Request]) -> _Request:
    """Check a request's types; what is null was left out, and what else is in it has no effect.

    Raises
    ------
    BadRequest
    """
    try:
        return msgspec.convert({name: given for name, given in document.items() if given is not None}, kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except RecursionError:
        raise BadRequest("The request is nested too deeply.") from None


async def rank(
    serving: Serving,
    exchange: Exchange,
    queries: list[str],
    documents: list[str],
    *,
    model: str | None,
    truncate: bool,
    param: str,
) -> Ranked:
    """Ask the engine for a score of each document.

    Raises
    ------
    ApiError, EngineError, Disconnected
    """
    if model is not None:
        serving.require_model(model)
    serving.require_ranking()
    if not 1 <= len(documents) <= DOCUMENTS:
        raise BadRequest(f"{param!r} must hold 1 to {DOCUMENTS} texts.", param=param)
    exchange.outcome["model"] = serving.name
    request = RankRequest(
        queries=queries,
        documents=documents,
        truncate=truncate,
        deadline=time.monotonic() + REQUEST_SECONDS,
        client=exchange.caller,
    )
    async with cancelled_on_disconnect(exchange):
        ranked = await serving.engine.rank(request)
    exchange.outcome["promptTokens"] = ranked.prompt_tokens
    return ranked


def probability(score: float) -> float:
    """From 0 to 1, in the order of the scores: rerankers are trained with this function after their last layer."""
    if score < 0:
        return math.exp(score) / (1 + math.exp(score))
    return 1 / (1 + math.exp(-score))
