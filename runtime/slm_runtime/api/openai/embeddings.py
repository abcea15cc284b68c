"""POST /v1/embeddings."""

import base64
import struct
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.prompts import Prompts, separate
from slm_runtime.api.openai.requests import read
from slm_runtime.api.serving import Serving
from slm_runtime.api.vectors import embed, written

INPUTS: Final = 2048
"""OpenAI's."""


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    truncate_prompt_tokens: Literal[-1] | None = None


async def create(serving: Serving, exchange: Exchange) -> None:
    wanted = await read(serving, exchange, EmbeddingRequest, fields.EMBEDDING)
    served = serving.require_model(wanted.model)
    serving.require_embeddings()
    inputs = separate(wanted.input, "input")
    if len(inputs) > INPUTS or not all(inputs):
        raise BadRequest(f"'input' must hold 1 to {INPUTS} texts, none of them empty.", param="input")
    width = serving.engine.info.embedding_length
    if wanted.dimensions is not None and wanted.dimensions > width:
        raise BadRequest(
            f"'dimensions' is {wanted.dimensions}; this model's vectors have {width}.",
            param="dimensions",
            code="invalid_value",
        )
    embedded = await embed(
        serving, exchange, served, inputs, truncate=wanted.truncate_prompt_tokens is not None
    )
    write = _in_base64 if wanted.encoding_format == "base64" else msgspec.json.encode
    vectors = await written(embedded.vectors, wanted.dimensions, write)
    data = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens}
    await exchange.respond_json({"object": "list", "data": data, "model": served.name, "usage": used})


def _in_base64(vector: list[float]) -> bytes:
    return b'"' + base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)) + b'"'
