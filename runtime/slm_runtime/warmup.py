"""The first tokens: proof that the model answers, and the measure of how fast."""

import time
from datetime import UTC, datetime
from typing import Final

from slm_contract.report import Performance
from slm_runtime.engine.client import EngineClient
from slm_runtime.engine.messages import Delta, GenerateRequest, RequestFinished, Sampling
from slm_runtime.errors import EngineFailed

TOKENS: Final = 16
DECODE_SECONDS: Final = 5.0
"""A slow machine is ready with fewer tokens."""


async def warm_up(engine: EngineClient, load_seconds: float) -> Performance:
    """Generate a few tokens.

    Raises
    ------
    EngineFailed
        Not one token came.
    """
    request = GenerateRequest(
        prompt=["The capital of France is"],
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
