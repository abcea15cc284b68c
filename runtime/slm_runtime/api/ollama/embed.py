"""POST /api/embed, and the older /api/embeddings."""

import time
from typing import Any

import msgspec

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.ollama.ndjson import nanoseconds
from slm_runtime.api.ollama.options import parse_options
from slm_runtime.api.ollama.requests import parse, remember_keep_alive
from slm_runtime.api.serving import Serving
from slm_runtime.api.vectors import embed, written


class Embed(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[str] = ""
    truncate: bool | None = None
    dimensions: int = 0
    """Not positive: as many as the model has."""
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None


class LegacyEmbed(msgspec.Struct, kw_only=True):
    model: str
    prompt: str = ""
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None


async def create(serving: Serving, exchange: Exchange) -> None:
    began = time.monotonic()
    wanted = await parse(exchange, Embed)
    served = serving.require_model(wanted.model)
    serving.require_embeddings()
    parse_options(wanted.options, serving.prompt)
    remember_keep_alive(serving, wanted.keep_alive)
    texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    inputs: list[str | list[int]] = [*texts] if wanted.input else []
    document: dict[str, Any] = {"model": wanted.model, "embeddings": [], "prompt_eval_count": 0}
    # As Ollama: nothing to embed is no error, but an empty answer.
    if inputs:
        embedded = await embed(serving, exchange, served, inputs, truncate=wanted.truncate is not False)
        dimensions = wanted.dimensions if wanted.dimensions > 0 else None
        document["embeddings"] = await written(embedded.vectors, dimensions)
        document["prompt_eval_count"] = embedded.prompt_tokens
    took = nanoseconds(time.monotonic() - began)
    await exchange.respond_json({**document, "total_duration": took, "load_duration": nanoseconds(0)})


async def create_legacy(serving: Serving, exchange: Exchange) -> None:
    wanted = await parse(exchange, LegacyEmbed)
    served = serving.require_model(wanted.model)
    serving.require_embeddings()
    parse_options(wanted.options, serving.prompt)
    remember_keep_alive(serving, wanted.keep_alive)
    if not wanted.prompt:
        await exchange.respond_json({"embedding": []})
        return
    embedded = await embed(serving, exchange, served, [wanted.prompt], truncate=True, normalize=False)
    await exchange.respond_json({"embedding": (await written(embedded.vectors))[0]})
