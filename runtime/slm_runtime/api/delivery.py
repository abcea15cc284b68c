"""An answer on its way to the client, whole or as it comes: one driver for every protocol.

A protocol is an `Answer`: it says what the events of a generation look like in its own words, and nothing else.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar, Final, Protocol

from slm_runtime.api.answering import ANSWERS, Gathered, Tracked, broken, gather, interleaved, together
from slm_runtime.api.http.exchange import Exchange, Headers
from slm_runtime.api.http.problems import ApiError
from slm_runtime.engine.messages import ChoiceFinished, Delta, FinishReason, RequestFinished

SILENCE_SECONDS: Final = 5.0
"""After so long without a piece, and at most twice that, a stream shows that it lives: proxies cut what is silent, nginx
after a minute, and clients send their requests once more."""


class Answer(Protocol):
    """One answer in one protocol's words; what is returned as bytes is whole events, or nothing."""

    HEADERS: ClassVar[Headers]
    """A stream's."""

    def whole(self, gathered: Gathered) -> Any:
        """The document of an answer that isn't streamed."""
        ...

    def head(self) -> bytes:
        """What a stream begins with, at once."""
        return b""

    def opening(self) -> bytes:
        """What comes with its first piece, by whose arrival clients measure how long they waited."""
        return b""

    def sign(self) -> bytes:
        """What a stream says while it has nothing to say."""
        ...

    def delta(self, delta: Delta) -> bytes: ...

    def finish(self, finished: ChoiceFinished) -> bytes:
        """A choice has ended as answers do."""
        ...

    def end(self, end: RequestFinished) -> bytes:
        """All choices have ended; `end` is of all prompts together."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """It broke off, and the status line is out."""
        ...


async def deliver(exchange: Exchange, tracked: list[Tracked], answer: Answer, *, stream: bool) -> None:
    """Send what the generations make.

    Raises
    ------
    ApiError
        An answer that isn't streamed broke off.
    """
    if not stream:
        await exchange.respond_json(answer.whole(await gather(tracked)))
        return
    await exchange.start(200, answer.HEADERS)
    if head := answer.head():
        await exchange.write(head)
    async with _signs_of_life(exchange, answer):
        last = await _send_pieces(exchange, tracked, answer)
    await exchange.write(last, more=False)


@asynccontextmanager
async def _signs_of_life(exchange: Exchange, answer: Answer) -> AsyncIterator[None]:
    """Inside, the stream isn't silent for long, whether it waits for its turn, its prompt, or a call that is being read."""

    async def watch() -> None:
        written = exchange.bytes_out
        while True:
            await asyncio.sleep(SILENCE_SECONDS)
            if exchange.bytes_out == written:
                await exchange.write(answer.sign())
            written = exchange.bytes_out

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


async def _send_pieces(exchange: Exchange, tracked: list[Tracked], answer: Answer) -> bytes:
    """Write what comes; returns what the stream ends with."""
    opening = answer.opening()
    ends: list[RequestFinished] = []
    failed: ChoiceFinished | None = None
    batches = tracked[0].batches() if len(tracked) == 1 else interleaved(tracked)
    async with aclosing(batches):
        async for events in batches:
            out = []
            for event in events:
                if isinstance(event, Delta):
                    out.append(answer.delta(event))
                elif isinstance(event, ChoiceFinished):
                    if event.reason in ANSWERS:
                        out.append(answer.finish(event))
                    else:
                        failed = event
                elif failed is not None:
                    return b"".join([*out, _broken_off(exchange, answer, failed.reason, event.message)])
                else:
                    ends.append(event)
            if len(ends) == len(tracked):
                return b"".join([opening, *out, answer.end(together(ends))])
            if written := b"".join(out):
                await exchange.write(opening + written)
                opening = b""
    return _broken_off(exchange, answer, "error", None)


def _broken_off(exchange: Exchange, answer: Answer, reason: FinishReason, message: str | None) -> bytes:
    error = broken(reason, message)
    exchange.outcome["error"] = error.message
    return answer.failure(error)
