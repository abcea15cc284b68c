"""A generation as every API needs it: errors as HTTP's, latencies measured, gone clients noticed."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from slm_runtime.api.conversation.schema import unheeded
from slm_runtime.api.http.exchange import Disconnected, Exchange
from slm_runtime.api.http.problems import (
    ApiError,
    BadRequest,
    EngineFailed,
    ServerFault,
    TooBusy,
    Unavailable,
)
from slm_runtime.api.serving import Serving
from slm_runtime.engine.client import (
    DeadlineExceeded,
    EngineBusy,
    EngineDied,
    EngineError,
    EngineUnavailable,
    Generation,
    RequestRefused,
)
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    Event,
    FinishReason,
    GenerateRequest,
    RequestFinished,
    TokenLogprobs,
    Usage,
)
from slm_runtime.metrics import Metrics

REQUEST_SECONDS: Final = 1800.0
"""No request lives longer, its time in the queue included."""
RESTART_RETRY_SECONDS: Final = 5.0
LOGPROBS: Final = 1 << 19
"""Of all tokens in one whole answer, alternatives included; a stream has no such bound."""

ANSWERS: Final[frozenset[FinishReason]] = frozenset({"stop", "length"})
"""How an answer ends; the engine's other reasons are errors."""

_Logprobs = TypeVar("_Logprobs")
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(TokenLogprobs).decode


def api_error(error: EngineError, params: dict[str, str]) -> ApiError:
    """Turn the engine's refusal into HTTP's; `params` renames its fields to the API's own."""
    if isinstance(error, RequestRefused):
        param = None if error.param is None else params.get(error.param, error.param)
        code = "context_length_exceeded" if error.code == "context_length_exceeded" else "invalid_value"
        return BadRequest(str(error), param=param, code=code)
    if isinstance(error, EngineBusy):
        return TooBusy(str(error), retry_after=error.retry_after)
    if isinstance(error, EngineDied):
        return EngineFailed(str(error))
    if isinstance(error, EngineUnavailable):
        return _unavailable(str(error))
    if isinstance(error, DeadlineExceeded):
        return Unavailable(str(error), code="deadline_exceeded")
    return ServerFault(str(error))


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, code="engine_unavailable", retry_after=RESTART_RETRY_SECONDS)


@asynccontextmanager
async def cancelled_on_disconnect(exchange: Exchange) -> AsyncIterator[None]:
    """Cancel what is inside when the client goes away, and raise Disconnected instead.

    The request's body must have been read before.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    gone = False

    async def watch() -> None:
        nonlocal gone
        await exchange.disconnected()
        if not exchange.complete:
            gone = True
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise Disconnected from None
        raise
    finally:
        watcher.cancel()


@dataclass
class Tracked:
    """A generation whose events pass by the metrics on their way. Yields them in batches, one a wake-up."""

    generation: Generation
    metrics: Metrics
    outcome: dict[str, Any]
    began: float
    n: int = 1
    """How many choices it has."""
    first: int = 0
    """The number of its first one: those of an answer are numbered through, whichever prompt they follow."""
    _last: dict[int, float] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return self.generation.prompt_tokens

    async def batches(self) -> AsyncGenerator[list[Event]]:
        """All events that are there, each time something is. Ends after RequestFinished."""
        async for event in self.generation:
            events = [event, *self.generation.pending()]
            now = time.monotonic()
            for one in events:
                self._observe(one, now)
            yield events

    def _observe(self, event: Event, now: float) -> None:
        if isinstance(event, Delta):
            if self.first:
                event.choice += self.first
            last = self._last.get(event.choice)
            if last is not None:
                self.metrics.inter_token.observe((now - last) / max(1, len(event.tokens)))
            elif not self._last:
                self.metrics.first_token.observe(now - self.began)
            self._last[event.choice] = now
        elif isinstance(event, ChoiceFinished):
            if self.first:
                event.choice += self.first
            self.outcome["finish"] = event.reason
        else:
            self.metrics.request_seconds.observe(now - self.began)
            self.metrics.queue_seconds.observe(event.timings.queue)
            self._add("promptTokens", event.usage.prompt_tokens)
            self._add("cachedTokens", event.usage.cached_tokens)
            self._add("completionTokens", event.usage.completion_tokens)
            for phase in ("queue", "prefill", "decode"):
                # Of several prompts the longest: they run side by side.
                name, seconds = f"{phase}Seconds", getattr(event.timings, phase)
                self.outcome[name] = max(self.outcome.get(name, 0.0), round(seconds, 4))

    def _add(self, name: str, tokens: int) -> None:
        self.outcome[name] = self.outcome.get(name, 0) + tokens


@asynccontextmanager
async def generating(
    serving: Serving,
    exchange: Exchange,
    requests: list[GenerateRequest],
    params: dict[str, str],
    began: float | None = None,
) -> AsyncIterator[list[Tracked]]:
    """Submit requests; inside, they run; when the client goes or the block is left, they are cancelled.

    `began`: when what they are a part of did, on the monotonic clock, if that isn't now.

    Raises
    ------
    ApiError
        The engine refused it.
    Disconnected
    """
    began = time.monotonic() if began is None else began
    exchange.outcome["model"] = serving.served[requests[0].adapter].name
    async with cancelled_on_disconnect(exchange), AsyncExitStack() as stack:
        tracked: list[Tracked] = []
        if requests[0].constraint is not None:
            exchange.tell_ignored([f"schema.{name}" for name in unheeded(requests[0].constraint)])
        for request in requests:
            request.deadline = began + REQUEST_SECONDS
            request.client = exchange.caller
            try:
                generation = await serving.engine.generate(request)
            except EngineError as error:
                raise api_error(error, params) from error
            await stack.enter_async_context(generation)
            first = sum(one.n for one in tracked)
            tracked.append(
                Tracked(generation, serving.metrics, exchange.outcome, began, n=request.n, first=first)
            )
        yield tracked


def of_text(logprobs: list[_Logprobs], tokens: list[int]) -> list[_Logprobs]:
    """Those of the tokens that make the text: the token that ended it comes after them, and has no text."""
    return logprobs[: len(tokens)]


@dataclass
class Choice:
    """One finished choice, gathered."""

    pieces: list[tuple[str, int]] = field(default_factory=list)
    """Text as it came, and how many tokens each piece has."""
    tokens: list[int] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)
    """The tokens' logprobs: as objects, those of many alternatives take ten times the memory."""
    reason: FinishReason = "stop"
    stop: str | None = None
    """The stop string that ended it."""

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)

    @property
    def logprobs(self) -> Iterator[TokenLogprobs]:
        return map(_unpack, self.packed)

    @property
    def text_logprobs(self) -> Iterator[TokenLogprobs]:
        """See `of_text`."""
        return map(_unpack, of_text(self.packed, self.tokens))


@dataclass
class Gathered:
    choices: list[Choice]
    end: RequestFinished


async def gather(all_tracked: list[Tracked]) -> Gathered:
    """Wait for the whole answer: the choices of every prompt, one after another.

    Raises
    ------
    ServerFault, Unavailable, BadRequest
        A choice ended by an error, at its deadline or where its schema led nowhere: half an answer is none.
    """
    choices = [Choice() for tracked in all_tracked for _ in range(tracked.n)]
    return Gathered(choices, together([await _gather(tracked, choices) for tracked in all_tracked]))


async def _gather(tracked: Tracked, choices: list[Choice]) -> RequestFinished:
    async for events in tracked.batches():
        for event in events:
            if isinstance(event, Delta):
                choice = choices[event.choice]
                choice.pieces.append((event.text, len(event.tokens)))
                choice.tokens += event.tokens
                choice.packed += map(_pack, event.logprobs or [])
            elif isinstance(event, ChoiceFinished):
                choices[event.choice].reason = event.reason
                choices[event.choice].stop = event.stop
            else:
                for choice in choices:
                    if choice.reason not in ANSWERS:
                        raise broken(choice.reason, event.message)
                return event
    raise broken("error", None)


def together(ends: list[RequestFinished]) -> RequestFinished:
    """The end of an answer to several prompts: the last one's, with the usage of all."""
    used = [end.usage for end in ends]
    usage = Usage(
        prompt_tokens=sum(one.prompt_tokens for one in used),
        cached_tokens=sum(one.cached_tokens for one in used),
        completion_tokens=sum(one.completion_tokens for one in used),
        accepted_tokens=sum(one.accepted_tokens for one in used),
        rejected_tokens=sum(one.rejected_tokens for one in used),
    )
    return replace(ends[-1], usage=usage)


async def interleaved(all_tracked: list[Tracked]) -> AsyncGenerator[list[Event]]:
    """The events of several generations as they come."""
    queue: asyncio.Queue[list[Event]] = asyncio.Queue(1)

    async def forward(tracked: Tracked) -> None:
        async for events in tracked.batches():
            await queue.put(events)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(forward(tracked)) for tracked in all_tracked]
        open_count = len(all_tracked)
        try:
            while open_count:
                events = await queue.get()
                open_count -= isinstance(events[-1], RequestFinished)
                yield events
        except GeneratorExit:
            # The reader has left. The group would wrap this exception in one that nobody expects.
            for task in tasks:
                task.cancel()


def broken(reason: FinishReason, message: str | None) -> ApiError:
    """What is told of an answer that broke off."""
    if reason == "deadline":
        return Unavailable(message or "The request reached its deadline.", code="deadline_exceeded")
    if reason == "unavailable":
        return _unavailable(message or "The engine is not available.")
    if reason == "constraint":
        return BadRequest(
            f"The answer can't go on in the form that was asked for: {message}.", code="invalid_value"
        )
    return EngineFailed(
        message or "The engine failed while it answered; the request was not repeated. Send it again."
    )
