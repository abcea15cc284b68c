"""Starts the engine process, speaks with it, and starts it anew when it dies. Implements EngineClient."""

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

from slm_runtime.engine.client import EngineBusy, EngineError, EngineState, EngineUnavailable, RequestRefused
from slm_runtime.engine.connection import ENGINE_COMMAND, EngineProcess
from slm_runtime.engine.messages import (
    Accepted,
    Busy,
    Cancel,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    EmbedRequest,
    EngineConfig,
    Fault,
    FromEngine,
    GenerateRequest,
    Loaded,
    LoadFailed,
    Refused,
    Started,
    Stats,
    StepOutput,
    Submit,
    Tokenize,
    Tokenized,
)
from slm_runtime.engine.requests import PendingGeneration

log = logging.getLogger(__name__)

_DEATHS_IN_A_ROW: Final = 3
_BACKOFF_SECONDS: Final = 0.5

Answer = Embedded | Tokenized | Detokenized


class EngineSupervisor:
    """See EngineClient. Deaths count as being in a row until a request was answered in between."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        command: Sequence[str] = ENGINE_COMMAND,
        backoff: float = _BACKOFF_SECONDS,
    ) -> None:
        self._config = config
        self._command = command
        self._backoff = backoff
        self._state: EngineState = "Starting"
        self._failure: str | None = None
        self._info: Loaded | None = None
        self._stats = Stats()
        self._before = Stats()
        """Totals of the processes that are gone."""
        self._restarts = 0
        self._deaths = 0
        self._process: EngineProcess | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._changes: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1)
        self._generations: dict[int, PendingGeneration] = {}
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._last_sign = time.monotonic()

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def info(self) -> Loaded:
        if self._info is None:
            raise EngineUnavailable(self._failure or "the model is still being loaded")
        return self._info

    @property
    def stats(self) -> Stats:
        return self._stats

    @property
    def restarts(self) -> int:
        return self._restarts

    @property
    def pid(self) -> int | None:
        """Of the engine process that runs."""
        return None if self._process is None else self._process.pid

    @property
    def stalled_seconds(self) -> float:
        if self._state not in ("Ready", "Closing") or not (self._generations or self._answers):
            return 0.0
        return time.monotonic() - self._last_sign
