"""The life of the engine process: started, started anew when it died, put to rest, ended. Implements EngineClient."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from slm_runtime.engine.apart import Apart
from slm_runtime.engine.client import DeadlineExceeded, EngineError, EngineState, EngineUnavailable
from slm_runtime.engine.connection import EngineProcess
from slm_runtime.engine.launch import ENGINE_COMMAND, Launched, launch
from slm_runtime.engine.loading import EngineConfig, Loaded, LoadFailed, LoadFailureReason
from slm_runtime.engine.mailbox import Mailbox, Question
from slm_runtime.engine.messages import (
    Cancel,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    EmbedRequest,
    Fault,
    FromEngine,
    GenerateRequest,
    Prompt,
    Rank,
    Ranked,
    RankRequest,
    Score,
    Scored,
    ScoreRequest,
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
_RELOAD_SECONDS: Final = 300.0
"""A model that was loaded before and takes longer now hangs. The first load is kubelet's to bound."""

_Answer = TypeVar("_Answer")


class EngineSupervisor:
    """See EngineClient. Deaths count as being in a row until a request was answered in between."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        command: Sequence[str] = ENGINE_COMMAND,
        launched: Launched | None = None,
        backoff: float = _BACKOFF_SECONDS,
        keep_alive: float | None = None,
        reload_seconds: float = _RELOAD_SECONDS,
    ) -> None:
        """Nothing that wasn't launched runs before `start`.

        Parameters
        ----------
        launched
            The first process, with the same configuration; None: `start` launches it.
        backoff
            Seconds between the first death and the second process.
        keep_alive
            Seconds without work after which the process is ended, until there is work again; None: never.
        reload_seconds
            What a process may take to load, once one has shown that it can.
        """
        self._config = config
        self._command = command
        self._launched = launched
        self._backoff = backoff
        self._keep_alive = keep_alive
        self._reload_seconds = reload_seconds
        self._state: EngineState = "Starting"
        self._failure: str | None = None
        self._failure_reason: LoadFailureReason = "EngineFailed"
        self._info: Loaded | None = None
        self._stats = Stats()
        self._before = Stats()
        """Totals of the processes that are gone."""
        self._restarts = 0
        self._deaths = 0
        self._fault: str | None = None
        """What the dying process said of itself."""
        self._process: EngineProcess | None = None
        self._apart = Apart()
        self._supervision: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        """Set, and replaced, with each change of state."""
        self._mailbox = Mailbox(self._send)
        self._last_sign = time.monotonic()

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def failure_reason(self) -> LoadFailureReason:
        return self._failure_reason

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
        if self._state not in ("Ready", "Closing") or self._mailbox.empty:
            return 0.0
        return time.monotonic() - self._last_sign

    async def start(self) -> None:
        self._supervision = asyncio.create_task(self._supervise(), name="engine supervision")

    async def ready(self) -> Loaded:
        while self._state != "Ready" or self._info is None:
            if self._state in ("Failed", "Closing"):
                raise EngineUnavailable(self._failure or "the engine is closing")
            self._wake()
            await self._changed.wait()
        return self._info

    async def failed(self) -> str:
        while self._state != "Failed":
            await self._changed.wait()
        return self._failure or "the engine failed"

    async def generate(self, request: GenerateRequest) -> PendingGeneration:
        self._require_engine()
        self._wake()
        self._note_work()
        generation = self._mailbox.add(request, engine=self._state == "Ready")
        try:
            await generation.accepted
        except asyncio.CancelledError:
            generation.cancel()
            raise
        except EngineError:
            self._mailbox.drop(generation)
            # It holds the error, which holds this frame: a prompt of megabytes would stay until the collector comes.
            del generation
            raise
        return generation

    async def embed(self, request: EmbedRequest) -> Embedded:
        return await self._ask(Embed(self._mailbox.next_id(), request), Embedded, request.deadline)

    async def rank(self, request: RankRequest) -> Ranked:
        return await self._ask(Rank(self._mailbox.next_id(), request), Ranked, request.deadline)

    async def score(self, request: ScoreRequest) -> Scored:
        return await self._ask(Score(self._mailbox.next_id(), request), Scored, request.deadline)

    async def tokenize(
        self, prompt: str | Prompt, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]:
        parts: Prompt = [prompt] if isinstance(prompt, str) else prompt
        question = Tokenize(self._mailbox.next_id(), parts, add_special, parse_special)
        return (await self._ask(question, Tokenized)).tokens

    async def detokenize(self, tokens: list[int]) -> str:
        return (await self._ask(Detokenize(self._mailbox.next_id(), tokens), Detokenized)).text

    async def close(self) -> None:
        if self._state != "Failed":
            self._set_state("Closing")
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervision
        self._mailbox.lose("the server is shutting down", waiting=True)

    async def _supervise(self) -> None:
        while True:
            how = await self._live()
            # What was counted stays; what ran or waited is gone with the process.
            self._before = self._stats = _add(self._stats, Stats())
            if self._state in ("Failed", "Closing"):
                self._mailbox.lose(self._failure or how or "the server is shutting down", waiting=True)
                return
            if how is None:
                while self._state == "Unloaded":
                    await self._changed.wait()
                continue
            self._deaths += 1
            self._failure = self._fault or how
            log.error("%s (death %d in a row)", self._failure, self._deaths)
            if self._deaths >= _DEATHS_IN_A_ROW:
                self._fail(f"{self._failure}, {self._deaths} times in a row")
                return
            if self._info is not None:
                self._set_state("Restarting")
            self._restarts += 1
            self._mailbox.lose(self._failure, waiting=False)
            await asyncio.sleep(self._backoff * 2 ** (self._deaths - 1) * random.uniform(0.75, 1.25))  # noqa: S311

    async def _live(self) -> str | None:
        """One process, from its start to its end; returns how it ended, None where it was put to rest."""
        self._fault = None
        try:
            launched, self._launched = self._launched or launch(self._config, self._command), None
            self._process = await EngineProcess.connected(launched, self._receive)
        except OSError as error:
            return f"the engine process can't be started: {error}"
        try:
            return await self._watch(self._process)
        finally:
            await self._process.kill()
            self._process = None
            self._apart.come_back()

    async def _watch(self, process: EngineProcess) -> str | None:
        """Until it ends by itself, or has to be ended."""
        began = time.monotonic()
        ended = asyncio.ensure_future(process.ended())
        try:
            while True:
                left = self._seconds_left(began)
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait((ended, changed), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if ended.done():
                    return ended.result()
                left = self._seconds_left(began)
                if left is not None and left <= 0:
                    if self._state != "Ready":
                        return f"the engine process didn't load the model within {self._reload_seconds:g} s"
                    log.info("no request for %g s: the model leaves memory", self._keep_alive)
                    self._set_state("Unloaded")
                    return None
        finally:
            ended.cancel()

    def _seconds_left(self, began: float) -> float | None:
        """What the process has, as things stand, until it is ended from here; None: no end in sight."""
        now = time.monotonic()
        if self._state == "Ready":
            if self._keep_alive is None or not self._mailbox.empty:
                return self._keep_alive
            return self._last_sign + self._keep_alive - now
        if self._state == "Closing" or self._info is None:
            return None
        return began + self._reload_seconds - now

    def _wake(self) -> None:
        """There is work: a model that was unloaded is loaded again."""
        if self._state == "Unloaded":
            self._set_state("Reloading")

    def _fail(self, message: str) -> None:
        self._failure = message
        self._set_state("Failed")
        self._mailbox.lose(message, waiting=True)

    def _receive(self, message: FromEngine) -> None:
        self._last_sign = time.monotonic()
        match message:
            case Loaded():
                self._info = message
                if self._state != "Closing":
                    self._set_state("Ready")
                    self._mailbox.submit_waiting()
            case LoadFailed():
                self._failure_reason = message.reason
                self._fail(message.message)
            case Fault():
                self._fault = message.message
            case _:
                if self._mailbox.receive(message):
                    self._deaths = 0
                if isinstance(message, StepOutput) and message.stats is not None:
                    self._stats = _add(self._before, message.stats)
                    if self._process is not None:
                        self._apart.keep_off(self._process.pid)

    async def _ask(self, question: Question, kind: type[_Answer], deadline: float | None = None) -> _Answer:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(left):
                self._require_engine()
                await self.ready()
                self._note_work()
                answer = await self._mailbox.ask(question)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the engine was through with it") from None
        if not isinstance(answer, kind):
            raise TypeError(f"the engine answered with {type(answer).__name__}")
        return answer

    def _require_engine(self) -> None:
        if self._state in ("Failed", "Closing"):
            raise EngineUnavailable(self._failure or "the server is shutting down")
        if self._info is None:
            raise EngineUnavailable("the model is still being loaded")

    def _note_work(self) -> None:
        """An engine that was idle gave no sign; it owes one from now on."""
        if self._mailbox.empty:
            self._last_sign = time.monotonic()

    def _send(self, message: Submit | Cancel | Question) -> None:
        if self._process is not None:
            self._process.connection.send(message)

    def _set_state(self, state: EngineState) -> None:
        if state != self._state:
            self._state = state
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


def _add(before: Stats, now: Stats) -> Stats:
    """Totals over all processes, the rest as it is now."""
    return msgspec.structs.replace(
        now,
        steps=before.steps + now.steps,
        prompt_tokens=before.prompt_tokens + now.prompt_tokens,
        cached_tokens=before.cached_tokens + now.cached_tokens,
        generated_tokens=before.generated_tokens + now.generated_tokens,
        drafted_tokens=before.drafted_tokens + now.drafted_tokens,
        accepted_tokens=before.accepted_tokens + now.accepted_tokens,
        preemptions=before.preemptions + now.preemptions,
        engine_seconds=before.engine_seconds + now.engine_seconds,
        busy_seconds=before.busy_seconds + now.busy_seconds,
    )
