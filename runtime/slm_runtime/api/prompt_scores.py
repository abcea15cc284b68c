"""How likely the model finds a prompt's own tokens; and the generation of no tokens, for those who ask for nothing else."""

from collections import deque
from types import TracebackType
from typing import Self

from slm_runtime.api.answering import REQUEST_SECONDS, cancelled_on_disconnect
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Event,
    RequestFinished,
    ScoredInput,
    ScoreRequest,
    Timings,
    Usage,
)


async def score(
    serving: Serving, exchange: Exchange, request: ScoreRequest, began: float
) -> list[ScoredInput]:
    """Ask the engine for each input's log probabilities; `began` is when the request of which this is a part did.

    Raises
    ------
    EngineError, Disconnected
    """
    exchange.outcome["model"] = serving.served[request.adapter].name
    request.deadline = began + REQUEST_SECONDS
    request.client = exchange.caller
    async with cancelled_on_disconnect(exchange):
        return (await serving.engine.score(request)).inputs


class NoTokens:
    """See Generation: `n` choices that end at their limit of 0 tokens, after a prompt that was scored."""

    def __init__(self, prompt: ScoredInput, n: int) -> None:
        self.prompt_tokens = 1 + len(prompt.rest)
        self._events = deque[Event](ChoiceFinished(0, choice, "length", 0) for choice in range(n))
        self._events.append(RequestFinished(0, Usage(self.prompt_tokens, 0, 0), Timings(0, 0, 0)))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._events:
            raise StopAsyncIteration
        return self._events.popleft()

    def cancel(self) -> None:
        self._events.clear()

    def pending(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
