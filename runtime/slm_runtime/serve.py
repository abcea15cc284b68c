"""`slm-runtime serve`: the life of a serving process, from its sockets to its last answer.

bind ── start engine ── load ── first tokens ── READY ── SIGTERM ── drain ── finish ── end
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from slm_contract import places as contract
from slm_contract.config import AuthMode, PromptConfig, PromptParameters, RuntimeConfig
from slm_contract.report import RuntimeReport
from slm_runtime.api.app import api_app
from slm_runtime.api.http.auth import KeyRing
from slm_runtime.api.ops import ops_app
from slm_runtime.api.routes import routes
from slm_runtime.api.serving import Serving
from slm_runtime.engine.client import EngineClient, EngineError
from slm_runtime.engine.messages import AdapterFile, EngineConfig
from slm_runtime.engine.supervisor import EngineSupervisor
from slm_runtime.errors import RuntimeFailure, of_engine
from slm_runtime.listeners import listen
from slm_runtime.logs import configure
from slm_runtime.models.encrypted import PlainVolume
from slm_runtime.models.folder import FetchedModel, ModelFolder
from slm_runtime.places import Places
from slm_runtime.servers import Server, ServerThread
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.templates.renderer import TemplateRenderer
from slm_runtime.termination import leave
from slm_runtime.warmup import warm_up

HEARTBEAT_SECONDS: Final = 0.5
LAST_WORDS_SECONDS: Final = 2.0
"""For answers that the end of the grace period cut off to say so."""

_log = logging.getLogger("slm.serve")


def main(config: RuntimeConfig, places: Places | None = None) -> int:
    """Serve until told to stop; return the process's exit code."""
    configure()
    try:
        places = places or Places.from_environment()
        return _serve(config, places)
    except RuntimeFailure as failure:
        _log.error(failure.message, extra={"fields": {"remedy": failure.remedy}})
        report = RuntimeReport(command="serve", phase="Failed", failure=failure.to_failure())
        leave(report, (places or Places()).termination_message)
        return failure.exit_code


def _serve(config: RuntimeConfig, places: Places) -> int:
    with contextlib.ExitStack() as stack:
        fetched = []
        for each in (config.model, *(config.adapters or ())):
            folder = ModelFolder(places.model_dir, each)
            stack.enter_context(folder.served())
            fetched.append(folder.require())
        return _serve_model(config, places, fetched[0], fetched[1:])


def _serve_model(
    config: RuntimeConfig, places: Places, model: FetchedModel, adapters: Sequence[FetchedModel]
) -> int:
    config = config.model_copy(update={"prompt": prompt_of(config.prompt, model.prompt)})
    plain = PlainVolume(places.plain_dir, places.identities)
    api = listen(places.host, places.api_port)
    ops = listen(places.host, places.ops_port)
    own = [model.beside(path) for path in model.facts.own_adapters or ()]
    files = [plain.path(each) for each in adapters]
    engine = EngineSupervisor(
        engine_config(config, plain.path(model), own, files), keep_alive=config.keep_alive_seconds
    )
    keys = KeyRing(places.keys_dir) if config.auth is AuthMode.API_KEY else None
    serving = Serving(
        config=config,
        model=model.facts,
        adapters=[each.facts for each in adapters],
        engine=engine,
        keys=keys,
    )
    thread = ServerThread(ops_app(serving), ops, name="ops")
    thread.start()
    try:
        uvloop.run(Life(serving, api).run())
    finally:
        thread.stop()
    return contract.ExitCode.OK


def prompt_of(spec: PromptConfig | None, source: PromptConfig | None) -> PromptConfig | None:
    """What the source says of the prompt, and the spec's own words in its place, field by field."""
    if spec is None or source is None:
        return spec or source
    merged = source.model_copy(update=_said(spec))
    if spec.parameters is None or source.parameters is None:
        return merged
    parameters = source.parameters.model_copy(update=_said(spec.parameters))
    return merged.model_copy(update={"parameters": parameters})


def _said(model: PromptConfig | PromptParameters) -> dict[str, object]:
    return {name: value for name, value in model if value is not None}


def engine_config(
    config: RuntimeConfig, path: Path, own: Sequence[Path], adapters: Sequence[Path]
) -> EngineConfig:
    """`own`: adapters that are a part of the model; `adapters`: those of `config.adapters`, in their order."""
    return EngineConfig(
        engine="LlamaCpp",
        model_path=str(path),
        own_adapters=[AdapterFile(str(file)) for file in own],
        adapters=[
            AdapterFile(str(file), adapter.scale)
            for file, adapter in zip(adapters, config.adapters or (), strict=True)
        ],
        context_length=config.context_length,
        parallel=config.parallel,
        kv_cache_type=config.kv_cache_type.value,
        flash_attention=config.flash_attention,
        batch_size=config.batch_size,
        threads=config.threads,
        provider=config.hardware.provider,
        gpu_layers=config.hardware.gpu_layers,
    )


class Life:
    """The event loop's part: one object, since what the signals set is read at every stage."""

    def __init__(self, serving: Serving, listener: socket.socket) -> None:
        self._serving = serving
        self._engine: EngineClient = serving.engine
        self._listener = listener
        self._server = Server(api_app(serving, routes(serving)))
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
        await self._engine.start()
        accepting = asyncio.create_task(self._server.serve([self._listener]))
        try:
            if await self._unless_stopped(self._load()):
                await self._unless_stopped(asyncio.Event().wait())
                await self._drain(accepting)
        finally:
            await self._engine.close()
            self._server.should_exit = self._server.force_exit = True
            await accepting
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
        self._serving.chat = await ChatFormat.of(info, self._renderer, self._serving.prompt)
        if self._serving.chat.problem is not None:
            _log.warning(self._serving.chat.problem)
        performance = await warm_up(self._engine, info.load_seconds)
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
