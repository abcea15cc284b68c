"""What the API process sees of the engine: a Protocol, so that tests can play it, and its errors.

EngineError
├── EngineUnavailable     not loaded, restarting, closing, given up: 503
│   └── EngineDied        it ended while it read the request, perhaps because of it: 500
├── EngineBusy            the queue is full: 429 with Retry-After
├── RequestRefused        the request can't be served by this model: 400
└── DeadlineExceeded      it waited until its deadline: 503
"""

from types import TracebackType
from typing import Literal, Protocol, Self

from slm_runtime.engine.loading import Loaded, LoadFailureReason
from slm_runtime.engine.messages import (
    Embedded,
    EmbedRequest,
    Event,
    GenerateRequest,
    Prompt,
    Ranked,
    RankRequest,
    Scored,
    ScoreRequest,
    Stats,
)

EngineState = Literal["Starting", "Ready", "Restarting", "Unloaded", "Reloading", "Closing", "Failed"]
"""`Failed` is final: the model can't be loaded, or the process died three times in a row.

`Unloaded`: nobody asked for as long as the model is to be kept, and the process was ended. The next request makes that
`Reloading`, and waits.
"""


class EngineError(Exception):
    """A sentence for people in `str(error)`."""


class EngineUnavailable(EngineError):
    """No engine answers: it is starting, restarting, closing, or has given up."""


class EngineDied(EngineUnavailable):
    """The engine process ended while it had the request, which may be why."""


class DeadlineExceeded(EngineError):
    """The request was still waiting for its turn at its deadline."""


class EngineBusy(EngineError):
    """The queue is full."""

    def __init__(self, message: str, *, retry_after: float, waiting: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds."""
        self.waiting = waiting


class RequestRefused(EngineError):
    """The model can't serve this request, now or later."""

    def __init__(
        self, message: str, *, param: str | None, code: Literal["invalid", "context_length_exceeded"]
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Generation(Protocol):
    """The events of one accepted request; ends after RequestFinished. Leaving its context cancels it.

    Iterating raises nothing, since part of the answer may be on its way: a deadline, a crash of the engine, or its end
    before the request had its turn finish each open choice with reason `deadline`, `error` or `unavailable`, then the
    request with a message that says why.
    """

    prompt_tokens: int

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Event: ...

    def cancel(self) -> None:
        """Free the sequence within one step; no event follows. Safe at any time, any number of times."""
        ...

    def pending(self) -> list[Event]:
        """Take all further events that are here already: a slow reader writes them as one."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class EngineClient(Protocol):
    """The engine, whatever is behind it. All methods belong to one event loop."""

    @property
    def state(self) -> EngineState: ...

    @property
    def failure(self) -> str | None:
        """Why the state is `Failed`, or why the last process died; a sentence for people."""
        ...

    @property
    def failure_reason(self) -> LoadFailureReason:
        """What kind of failure it is, where the state is `Failed`."""
        ...

    @property
    def info(self) -> Loaded:
        """What runs; raises EngineUnavailable before the first load."""
        ...

    @property
    def stats(self) -> Stats:
        """The latest that the engine sent; totals go on over restarts."""
        ...

    @property
    def restarts(self) -> int: ...

    @property
    def pid(self) -> int | None:
        """Of the process that computes; None while there is none."""
        ...

    @property
    def stalled_seconds(self) -> float:
        """How long the engine has owed an answer without giving any sign of life; 0 while idle or loading."""
        ...

    async def start(self) -> None:
        """Start the process and return at once; it loads, and is restarted, in the background."""
        ...

    async def ready(self) -> Loaded:
        """Wait until it is loaded, again if it was unloaded; raises EngineUnavailable once the state is `Failed`."""
        ...

    async def failed(self) -> str:
        """Wait until the state is `Failed`, and return why: the container should end."""
        ...

    async def generate(self, request: GenerateRequest) -> Generation:
        """Submit, and wait until the engine accepted it. Raises an EngineError.

        While the engine restarts or loads again this waits, up to the request's deadline.
        """
        ...

    async def embed(self, request: EmbedRequest) -> Embedded:
        """A vector for each input, as the model was trained for. Raises an EngineError."""
        ...

    async def rank(self, request: RankRequest) -> Ranked:
        """A score for each document. Raises an EngineError."""
        ...

    async def score(self, request: ScoreRequest) -> Scored:
        """The log probabilities of each input's tokens. Raises an EngineError."""
        ...

    async def tokenize(
        self, prompt: str | Prompt, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]: ...

    async def detokenize(self, tokens: list[int]) -> str: ...

    async def close(self) -> None:
        """Refuse what is new, end the process, and say so to all that was under way."""
        ...
