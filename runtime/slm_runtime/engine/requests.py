"""One request on the API side: what came of it so far, and who waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from slm_runtime.engine.client import DeadlineExceeded, EngineDied, EngineError, EngineUnavailable
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    Event,
    FinishReason,
    GenerateRequest,
    RequestFinished,
    Timings,
    Usage,
)

UNREAD: Final = 1 << 17
"""Tokens and log probabilities that are kept for a client that takes them more slowly than they are made."""


class PendingGeneration:
    """See Generation. Survives a restart of the engine only if no process had it yet."""

    def __init__(self, identity: int, request: GenerateRequest, cancel: Callable[[int], None]) -> None:
        self.id = identity
        self.request = request
        self.prompt_tokens = 0
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = False
        self.ended = False
        self.sent = False
        """No other process is given it: the one that had it may have died of it."""
        self.expiry: asyncio.TimerHandle | None = None
        """Running while no engine is there that could watch the deadline."""
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._open = set(range(request.n))
        self._completion_tokens = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self.ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def pending(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events

    def cancel(self) -> None:
        if not self.ended:
            self._end()
            self._events.clear()
            self._cancel(self.id)
            self._wake()

    def give(self, event: Event) -> None:
        """An event from the engine."""
        if self.ended:
            return
        match event:
            case Delta():
                self._completion_tokens += len(event.tokens)
            case ChoiceFinished():
                self._open.discard(event.choice)
            case RequestFinished():
                self._end()
        self._events.append(event)
        self._wake()
        if len(self._events) * (1 + (self.request.logprobs or 0)) > UNREAD:
            self._fail("error", "the answer was read too slowly to be kept", EngineUnavailable("unread"))
            self._cancel(self.id)

    def lose(self, message: str) -> None:
        """The engine process is gone."""
        reason: FinishReason = "error" if self.started else "unavailable"
        self._fail(reason, message, EngineDied(message) if self.sent else EngineUnavailable(message))

    def expire(self, message: str) -> None:
        """The deadline passed, and no engine was there to notice."""
        self._fail("deadline", message, DeadlineExceeded(message))

    def _fail(self, reason: FinishReason, message: str, refusal: EngineError) -> None:
        if self.ended:
            return
        if not self.accepted.done():
            self.refuse(refusal)
            return
        for choice in sorted(self._open):
            self._events.append(ChoiceFinished(self.id, choice, reason, 0))
        usage = Usage(self.prompt_tokens, 0, self._completion_tokens)
        self._events.append(RequestFinished(self.id, usage, Timings(0, 0, 0), message))
        self._end()
        self._wake()

    def refuse(self, error: EngineError) -> None:
        """The engine doesn't take it: at once, or anew, after the process that had accepted it is gone."""
        if self.accepted.done():
            self._fail("unavailable", str(error), error)
        else:
            self._end()
            self.accepted.set_exception(error)

    def accept(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        if not self.accepted.done():
            self.accepted.set_result(None)

    def _end(self) -> None:
        self.ended = True
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
