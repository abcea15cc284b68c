"""The event loop's part of `slm-runtime serve`: load, first tokens, ready; and, once it is told to end, drain and finish."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from typing import Any, Final

import uvloop

from slm_runtime.api.app import api_app
from slm_runtime.api.ops import ops_app
from slm_runtime.api.routes import routes
from slm_runtime.api.serving import Serving
from slm_runtime.canary.asking import Canaries
from slm_runtime.engine.client import EngineClient, EngineError
from slm_runtime.errors import of_engine
from slm_runtime.servers import Server, ServerThread
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.templates.renderer import TemplateRenderer
from slm_runtime.warmup import warm_up

HEARTBEAT_SECONDS: Final = 0.5
LAST_WORDS_SECONDS: Final = 2.0
"""For answers that the end of the grace period cut off to say so."""

_log = logging.getLogger("slm.serve")


def live(serving: Serving, api: socket.socket, ops: socket.socket) -> None:
    """Serve on both sockets until told to stop; probes have a thread of their own.

    Raises
    ------
    RuntimeFailure
        The engine gave up.
    """
    thread = ServerThread(ops_app(serving), ops, name="ops")
    thread.start()
    try:
        uvloop.run(Life(serving, api).run())
    finally:
        thread.stop()


class Life:
    """The event loop's part: one object, since what the signals set is read at every stage."""

    def __init__(self, serving: Serving, listener: socket.socket) -> None:
        self._serving = serving
        self._engine: EngineClient = serving.engine
        self._listener = listener
        self._server = Server(api_app(serving, routes(serving)), serving.config.idle_seconds)
        self._renderer = TemplateRenderer()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal.

        Raises
        ------
        RuntimeFailure
            The engine gave up.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        beat = asyncio.create_task(self._beat())
        starting = asyncio.create_task(self._renderer.start())
        await self._engine.start()
        accepting = asyncio.create_task(self._server.serve([self._listener]))
        try:
            if await self._unless_stopped(self._load()):
                asking = asyncio.create_task(Canaries(self._serving).run())
                await self._unless_stopped(asyncio.Event().wait())
                asking.cancel()
                await self._drain(accepting)
        finally:
            await self._engine.close()
            self._server.should_exit = self._server.force_exit = True
            await accepting
            await starting
            await self._renderer.close()
            beat.cancel()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()
        self._serving.draining = True

    async def _beat(self) -> None:
        while True:
            self._serving.heartbeat = time.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _load(self) -> None:
        info = await self._engine.ready()
        tokens = asyncio.create_task(warm_up(self._engine, info.load_seconds))
        try:
            self._serving.chat = await ChatFormat.of(info, self._renderer, self._serving.prompt)
            if self._serving.chat.problem is not None:
                _log.warning(self._serving.chat.problem)
            performance = await tokens
        finally:
            tokens.cancel()
        self._serving.performance = performance
        fields = {
            "model": self._serving.name,
            "device": info.device,
            "contextLength": info.context_length,
            "loadSeconds": round(performance.load_seconds, 2),
            "firstTokenMs": round(performance.first_token_ms),
            "tokensPerSecond": round(performance.tokens_per_second, 1),
        }
        _log.info("Ready", extra={"fields": fields})

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Do the work, and say whether it was finished before a signal came.

        Raises
        ------
        RuntimeFailure
        """
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        failing = asyncio.create_task(self._engine.failed())
        tasks = (working, stopping, failing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise of_engine(self._engine.failure_reason, failing.result())
            if working.done():
                working.result()
        except EngineError as error:
            raise of_engine(self._engine.failure_reason, str(error)) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return not self._stop.is_set()

    async def _drain(self, accepting: "asyncio.Task[None]") -> None:
        """Answer new requests until none comes any more, then what is under way.

        Endpoints lag behind a pod's end. And where no other pod is ready, kube-proxy goes on sending to one that ends, for
        as long as that one is ready: so it stays ready, and its successor has time to become so.
        """
        config, begun = self._serving.config, time.monotonic()
        end = begun + config.grace_seconds
        _log.info("Draining", extra={"fields": {"seconds": config.drain_seconds}})
        while (left := self._drain_left(begun)) > 0 and not self._stop_now.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_now.wait(), left)
        # The server takes no more connections, and ends when the last answer is out.
        self._server.should_exit = True
        hurry = asyncio.create_task(self._stop_now.wait())
        rest = max(0.0, end - time.monotonic())
        await asyncio.wait((accepting, hurry), timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not accepting.done():
            _log.warning("Stopping with requests unfinished")
            await self._engine.close()
            await asyncio.wait((accepting,), timeout=LAST_WORDS_SECONDS)

    def _drain_left(self, begun: float) -> float:
        """Seconds until it counts as asked no more, or has to leave the rest of its grace to what is under way."""
        config = self._serving.config
        quiet = max(begun, self._serving.asked) + config.drain_seconds
        longest = begun + max(min(config.drain_seconds, config.grace_seconds), config.grace_seconds / 2)
        return min(quiet, longest) - time.monotonic()
