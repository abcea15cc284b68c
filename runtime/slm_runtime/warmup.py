"""The first tokens, or an encoder's first vector: proof that the model answers, and the measure of how fast."""

import time
from datetime import UTC, datetime
from typing import Final

from slm_contract.report import Performance
from slm_runtime.engine.client import EngineClient, EngineError
from slm_runtime.engine.messages import (
    Delta,
    EmbedRequest,
    GenerateRequest,
    RankRequest,
    RequestFinished,
    Sampling,
)
from slm_runtime.errors import EngineFailed

TOKENS: Final = 8
DECODE_SECONDS: Final = 5.0
"""A slow machine is ready with fewer tokens."""

_TEXT: Final = "The capital of France is"


async def warm_up(engine: EngineClient, load_seconds: float) -> Performance:
    """Generate a few tokens; an encoder reads a text.

    Raises
    ------
    EngineFailed
        Not one token came, or no vector.
    """
    if not engine.info.generates:
        return await _encode(engine, load_seconds)
    request = GenerateRequest(
        prompt=[_TEXT],
        max_tokens=TOKENS,
        sampling=Sampling(temperature=0),
        ignore_eos=True,
    )
    began = time.monotonic()
    first = last = 0.0
    tokens = 0
    async with await engine.generate(request) as generation:
        async for event in generation:
            if isinstance(event, RequestFinished) and event.message is not None:
                raise EngineFailed(f"The engine failed while it made its first tokens: {event.message}.")
            if not isinstance(event, Delta) or not event.tokens:
                continue
            last = time.monotonic()
            first = first or last
            tokens += len(event.tokens)
            if last - first > DECODE_SECONDS:
                break
    if not tokens:
        raise EngineFailed("The model made no token when it was tried.")
    return Performance(
        load_seconds=load_seconds,
        first_token_ms=(first - began) * 1000,
        tokens_per_second=(tokens - 1) / (last - first) if last > first else 0.0,
        measured_at=datetime.now(UTC),
    )


async def _encode(engine: EngineClient, load_seconds: float) -> Performance:
    began = time.monotonic()
    try:
        if engine.info.embeds:
            tokens = (await engine.embed(EmbedRequest(inputs=[_TEXT]))).prompt_tokens
        else:
            tokens = (await engine.rank(RankRequest(queries=[_TEXT], documents=["Paris"]))).prompt_tokens
    except EngineError as error:
        raise EngineFailed(f"The engine failed while it read its first text: {error}.") from error
    seconds = max(time.monotonic() - began, 1e-6)
    return Performance(
        load_seconds=load_seconds,
        first_token_ms=seconds * 1000,
        tokens_per_second=tokens / seconds,
        measured_at=datetime.now(UTC),
    )
