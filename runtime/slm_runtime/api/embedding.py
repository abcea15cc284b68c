"""Vectors for texts, as OpenAI's and Ollama's endpoints both need them."""

import math
import time
from array import array
from typing import Final

import msgspec

from slm_runtime.api.errors import BadRequest
from slm_runtime.api.generation import REQUEST_SECONDS, cancelled_on_disconnect
from slm_runtime.api.http import Exchange
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import Embedded, EmbedRequest

NUMBERS: Final = 1 << 21
"""Of all vectors in an answer, which takes some dozens of bytes for each while it is made."""


async def embed(
    serving: Serving,
    exchange: Exchange,
    inputs: list[str | list[int]],
    *,
    truncate: bool = False,
    normalize: bool = True,
) -> Embedded:
    """Ask the engine for one vector an input.

    Raises
    ------
    ApiError, EngineError, Disconnected
    """
    width = serving.engine.info.embedding_length
    if len(inputs) * width > NUMBERS:
        raise BadRequest(
            f"{len(inputs)} inputs are more than the {NUMBERS // width} whose vectors, of {width} numbers each, one answer "
            f"holds: send some of them in another request",
            param="input",
        )
    exchange.outcome["model"] = serving.name
    request = EmbedRequest(
        inputs=inputs,
        truncate=truncate,
        normalize=normalize,
        deadline=time.monotonic() + REQUEST_SECONDS,
        client=exchange.caller,
    )
    async with cancelled_on_disconnect(exchange):
        embedded = await serving.engine.embed(request)
    exchange.outcome["promptTokens"] = embedded.prompt_tokens
    return embedded


def numbers(vector: bytes, dimensions: int | None = None) -> list[float]:
    """Of an embedded vector the first dimensions, at unit length again where that leaves some out."""
    whole: list[float] = array("f", vector).tolist()
    if dimensions is None or dimensions >= len(whole):
        return whole
    head = whole[:dimensions]
    length = math.hypot(*head) or 1.0
    return [value / length for value in head]


def encoded(values: list[float]) -> msgspec.Raw:
    """JSON, which takes less memory than the numbers do."""
    return msgspec.Raw(msgspec.json.encode(values))
