"""What was asked of the engine and isn't answered yet. It outlives the process that it is asked of."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import TypeAlias

from slm_runtime.engine.client import EngineBusy, EngineDied, EngineError, RequestRefused
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
    GenerateRequest,
    Rank,
    Ranked,
    Refused,
    Score,
    Scored,
    Started,
    StepOutput,
    Submit,
    Tokenize,
    Tokenized,
)
from slm_runtime.engine.requests import PendingGeneration

Question: TypeAlias = Embed | Rank | Score | Tokenize | Detokenize
Answer: TypeAlias = Embedded | Ranked | Scored | Tokenized | Detokenized
Reply: TypeAlias = Accepted | Refused | Busy | Started | StepOutput | Answer


class Mailbox:
    """`send` gives a message to the process of the moment; where there is none, it is lost."""

    def __init__(self, send: Callable[[Submit | Cancel | Question], None]) -> None:
        self._send = send
        self._ids = itertools.count(1)
        self._generations: dict[int, PendingGeneration] = {}
        self._answers: dict[int, asyncio.Future[Answer]] = {}

    @property
    def empty(self) -> bool:
        return not (self._generations or self._answers)

    def next_id(self) -> int:
        return next(self._ids)

    def add(self, request: GenerateRequest, *, engine: bool) -> PendingGeneration:
        """Submit it; without an engine it waits for `submit_waiting`, up to its deadline."""
        generation = PendingGeneration(self.next_id(), request, self._cancelled)
        self._generations[generation.id] = generation
        if engine:
            self._submit(generation)
        else:
            self._watch_deadline(generation)
        return generation

    def drop(self, generation: PendingGeneration) -> None:
        self._generations.pop(generation.id, None)

    async def ask(self, question: Question) -> Answer:
        """Raises an EngineError."""
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

    def receive(self, message: Reply) -> bool:
        """Give it to whom it is for; returns whether a request that the model computed is through."""
        match message:
            case StepOutput():
                return self._step(message)
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
            case _:
                answer = self._answers.pop(message.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
                return isinstance(message, Embedded | Ranked | Scored)
        return False

    def submit_waiting(self) -> None:
        """What came while there was no process; what the last one had is gone from the list."""
        for generation in self._generations.values():
            if generation.expiry is not None:
                generation.expiry.cancel()
                generation.expiry = None
            self._submit(generation)

    def lose(self, message: str, *, waiting: bool) -> None:
        """The process is gone, and with it all that it was sent, since it may have died of any of that.

        `waiting`: what waits for the next process is lost too.
        """
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineDied(message))
        self._answers.clear()
        for generation in list(self._generations.values()):
            if waiting or generation.sent:
                self.drop(generation)
                generation.lose(message)

    def _step(self, output: StepOutput) -> bool:
        events: list[Delta | ChoiceFinished] = [*output.deltas, *output.choices]
        for event in events:
            if generation := self._generations.get(event.id):
                generation.give(event)
        for finished in output.finished:
            if generation := self._generations.pop(finished.id, None):
                generation.give(finished)
        return bool(output.finished)

    def _submit(self, generation: PendingGeneration) -> None:
        generation.sent = True
        self._send(Submit(generation.id, generation.request))

    def _watch_deadline(self, generation: PendingGeneration) -> None:
        """While there is no engine that could."""
        deadline = generation.request.deadline
        if deadline is None:
            return

        def expire() -> None:
            self.drop(generation)
            generation.expire("the deadline passed while the engine was being started")

        generation.expiry = asyncio.get_running_loop().call_later(max(0, deadline - time.monotonic()), expire)

    def _refuse(self, identity: int, error: EngineError) -> None:
        if generation := self._generations.pop(identity, None):
            generation.refuse(error)
        answer = self._answers.pop(identity, None)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _cancelled(self, identity: int) -> None:
        if self._generations.pop(identity, None) is not None:
            self._send(Cancel(identity))
