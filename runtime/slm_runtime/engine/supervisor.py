"""Starts the engine process, speaks with it, and starts it anew when it dies or was put to rest. Implements EngineClient."""

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from slm_runtime.engine.apart import Apart
from slm_runtime.engine.client import (
    DeadlineExceeded,
    EngineBusy,
    EngineDied,
    EngineError,
    EngineState,
    EngineUnavailable,
    RequestRefused,
)
from slm_runtime.engine.connection import EngineProcess
from slm_runtime.engine.launch import ENGINE_COMMAND, Launched, launch
from slm_runtime.engine.messages import (
    Accepted,
    Busy,
    Cancel,
    ChoiceFinished,
    Delta,
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
    LoadFailureReason,
    Prompt,
    Rank,
    Ranked,
    RankRequest,
    Refused,
    Score,
    Scored,
    ScoreRequest,
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
_RELOAD_SECONDS: Final = 300.0
"""A model that was loaded before and takes longer now hangs. The first load is kubelet's to bound."""

Question = Embed | Rank | Score | Tokenize | Detokenize
Answer = Embedded | Ranked | Scored | Tokenized | Detokenized


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
        if self._state not in ("Ready", "Closing") or not (self._generations or self._answers):
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
        generation = PendingGeneration(next(self._ids), request, self._cancelled)
        self._note_work()
        self._generations[generation.id] = generation
        if self._state == "Ready":
            self._submit(generation)
        else:
            self._watch_deadline(generation)
        try:
            await generation.accepted
        except asyncio.CancelledError:
            generation.cancel()
            raise
        except EngineError:
            self._generations.pop(generation.id, None)
            # It holds the error, which holds this frame: a prompt of megabytes would stay until the collector comes.
            del generation
            raise
        return generation

    async def embed(self, request: EmbedRequest) -> Embedded:
        answer = await self._ask(Embed(next(self._ids), request), request.deadline)
        if not isinstance(answer, Embedded):
            raise TypeError(f"the engine answered with {type(answer).__name__}")
        return answer

    async def rank(self, request: RankRequest) -> Ranked:
        answer = await self._ask(Rank(next(self._ids), request), request.deadline)
        if not isinstance(answer, Ranked):
            raise TypeError(f"the engine answered with {type(answer).__name__}")
        return answer

    async def score(self, request: ScoreRequest) -> Scored:
        answer = await self._ask(Score(next(self._ids), request), request.deadline)
        if not isinstance(answer, Scored):
            raise TypeError(f"the engine answered with {type(answer).__name__}")
        return answer

    async def tokenize(
        self, prompt: str | Prompt, *, add_special: bool = False, parse_special: bool = True
    ) -> list[int]:
        parts: Prompt = [prompt] if isinstance(prompt, str) else prompt
        answer = await self._ask(Tokenize(next(self._ids), parts, add_special, parse_special))
        if not isinstance(answer, Tokenized):
            raise TypeError(f"the engine answered with {type(answer).__name__}")
        return answer.tokens

    async def detokenize(self, tokens: list[int]) -> str:
        answer = await self._ask(Detokenize(next(self._ids), tokens))
        if not isinstance(answer, Detokenized):
            raise TypeError(f"the engine answered with {type(answer).__name__}")
        return answer.text

    async def close(self) -> None:
        if self._state != "Failed":
            self._set_state("Closing")
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervision
        self._lose_requests("the server is shutting down", waiting=True)

    async def _supervise(self) -> None:
        while True:
            how = await self._live()
            # What was counted stays; what ran or waited is gone with the process.
            self._before = self._stats = _add(self._stats, Stats())
            if self._state in ("Failed", "Closing"):
                self._lose_requests(self._failure or how or "the server is shutting down", waiting=True)
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
            self._lose_requests(self._failure, waiting=False)
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
            if self._keep_alive is None or self._generations or self._answers:
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
        self._lose_requests(message, waiting=True)

    def _lose_requests(self, message: str, *, waiting: bool) -> None:
        """The process is gone, and with it all that it was sent, since it may have died of any of that.

        `waiting`: what waits for the next process is lost too.
        """
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineDied(message))
        self._answers.clear()
        for generation in list(self._generations.values()):
            if waiting or generation.sent:
                del self._generations[generation.id]
                generation.lose(message)

    def _watch_deadline(self, generation: PendingGeneration) -> None:
        """While there is no engine that could."""
        deadline = generation.request.deadline
        if deadline is None:
            return

        def expire() -> None:
            self._generations.pop(generation.id, None)
            generation.expire("the deadline passed while the engine was being started")

        generation.expiry = asyncio.get_running_loop().call_later(max(0, deadline - time.monotonic()), expire)

    def _receive(self, message: FromEngine) -> None:
        self._last_sign = time.monotonic()
        match message:
            case StepOutput():
                self._step(message)
            case Started():
                for identity in message.ids:
                    if generation := self._generations.get(identity):
                        generation.started = True
            case Accepted():
                if generation := self._generations.get(message.id):
                    generation.accept(message.prompt_tokens)
            case Refused():
                self._refuse(
                    message.id, RequestRefused(message.message, param=message.param, code=message.code)
                )
            case Busy():
                text = (
                    f"the server is busy: {message.waiting} requests are waiting already; "
                    f"try again in {message.retry_after:.1f} s"
                )
                self._refuse(
                    message.id, EngineBusy(text, retry_after=message.retry_after, waiting=message.waiting)
                )
            case Embedded() | Ranked() | Scored() | Tokenized() | Detokenized():
                if isinstance(message, Embedded | Ranked | Scored):
                    self._deaths = 0
                answer = self._answers.pop(message.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Loaded():
                self._info = message
                if self._state != "Closing":
                    self._set_state("Ready")
                    self._submit_waiting()
            case LoadFailed():
                self._failure_reason = message.reason
                self._fail(message.message)
            case Fault():
                self._fault = message.message

    def _step(self, output: StepOutput) -> None:
        events: list[Delta | ChoiceFinished] = [*output.deltas, *output.choices]
        for event in events:
            if generation := self._generations.get(event.id):
                generation.give(event)
        for finished in output.finished:
            self._deaths = 0
            if generation := self._generations.pop(finished.id, None):
                generation.give(finished)
        if output.stats is not None:
            self._stats = _add(self._before, output.stats)
            if self._process is not None:
                self._apart.keep_off(self._process.pid)

    def _submit_waiting(self) -> None:
        """What came while there was no process; what the last one had is gone from the list."""
        for generation in self._generations.values():
            if generation.expiry is not None:
                generation.expiry.cancel()
                generation.expiry = None
            self._submit(generation)

    def _submit(self, generation: PendingGeneration) -> None:
        generation.sent = True
        self._send(Submit(generation.id, generation.request))

    def _refuse(self, identity: int, error: EngineError) -> None:
        if generation := self._generations.pop(identity, None):
            generation.refuse(error)
        answer = self._answers.pop(identity, None)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _cancelled(self, identity: int) -> None:
        if self._generations.pop(identity, None) is not None:
            self._send(Cancel(identity))

    async def _ask(self, question: Question, deadline: float | None = None) -> Answer:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(left):
                return await self._answer(question)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the engine was through with it") from None

    async def _answer(self, question: Question) -> Answer:
        self._require_engine()
        await self.ready()
        self._note_work()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[question.id] = answer
        self._send(question)
        try:
            return await answer
        except asyncio.CancelledError:
            self._send(Cancel(question.id))
            raise
        finally:
            self._answers.pop(question.id, None)

    def _require_engine(self) -> None:
        if self._state in ("Failed", "Closing"):
            raise EngineUnavailable(self._failure or "the server is shutting down")
        if self._info is None:
            raise EngineUnavailable("the model is still being loaded")

    def _note_work(self) -> None:
        """An engine that was idle gave no sign; it owes one from now on."""
        if not (self._generations or self._answers):
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
        preemptions=before.preemptions + now.preemptions,
        engine_seconds=before.engine_seconds + now.engine_seconds,
        busy_seconds=before.busy_seconds + now.busy_seconds,
    )
