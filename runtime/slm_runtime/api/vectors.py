"""Vectors for texts, as OpenAI's and Ollama's endpoints both need them."""

import asyncio
import math
import time
from array import array
from collections.abc import Callable
from typing import Final

import msgspec

from slm_runtime.api.answering import REQUEST_SECONDS, cancelled_on_disconnect
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.serving import Served, Serving
from slm_runtime.engine.messages import Embedded, EmbedRequest

NUMBERS: Final = 1 << 21
"""Of all vectors in an answer, which takes some dozens of bytes for each while it is made."""


async def embed(
    serving: Serving,
    exchange: Exchange,
    served: Served,
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
    exchange.outcome["model"] = served.name
    request = EmbedRequest(
        inputs=inputs,
        truncate=truncate,
        normalize=normalize,
        adapter=served.adapter,
        deadline=time.monotonic() + REQUEST_SECONDS,
        client=exchange.caller,
    )
    async with cancelled_on_disconnect(exchange):
        embedded = await serving.engine.embed(request)
    exchange.outcome["promptTokens"] = embedded.prompt_tokens
    return embedded


async def written(
    vectors: list[bytes],
    dimensions: int | None = None,
    write: Callable[[list[float]], bytes] = msgspec.json.encode,
) -> list[msgspec.Raw]:
    """The vectors as JSON, which takes less memory than lists of numbers; others get their turn between two of them."""
    pieces = []
    for vector in vectors:
        pieces.append(msgspec.Raw(write(_shortened(vector, dimensions))))
        await asyncio.sleep(0)
    return pieces


def _shortened(vector: bytes, dimensions: int | None) -> list[float]:
    """Keep the first dimensions, at unit length again where that leaves some out."""
    whole: list[float] = array("f", vector).tolist()
    if dimensions is None or dimensions >= len(whole):
        return whole
    head = whole[:dimensions]
    length = math.hypot(*head) or 1.0
    return [value / length for value in head]
