"""A scripted engine behind the real protocol, and a real server in front of it."""

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
from uvicorn.server import ServerState

from slm_contract.config import AuthMode, ModelConfig, RuntimeConfig
from slm_contract.report import ModelFacts
from slm_runtime.api.app import api_app
from slm_runtime.api.http.auth import KeyRing
from slm_runtime.api.http.connection import BoundedProtocol
from slm_runtime.api.routes import routes
from slm_runtime.api.serving import Serving
from slm_runtime.engine.client import EngineState, EngineUnavailable
from slm_runtime.engine.loading import Loaded, LoadFailureReason, MemoryBreakdown
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    Embedded,
    EmbedRequest,
    Event,
    FinishReason,
    GenerateRequest,
    Prompt,
    Ranked,
    RankRequest,
    RequestFinished,
    Scored,
    ScoredInput,
    ScoreRequest,
    Stats,
    Timings,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)
from slm_runtime.servers import Server
from slm_runtime.templates.chat import CHATML, ChatFormat
from slm_runtime.templates.renderer import TemplateFailed, TemplateRenderer
from slm_runtime.templates.worker import render
from slm_runtime.warmup import warm_up

MODEL = "tiny"

FACTS = ModelFacts(
    file_name="tiny.gguf",
    size_bytes=1,
    architecture="llama",
    weights_bytes=1,
    context_length=2048,
    block_count=2,
    embedding_length=2,
    head_count=2,
    kv_heads=(1, 1),
    key_length=32,
    value_length=32,
    vocab_size=300,
)

LOADED = Loaded(
    engine="scripted",
    context_length=2048,
    trained_context_length=2048,
    parallel=4,
    kv_cells=8192,
    vocab_size=300,
    embedding_length=2,
    bos=1,
    eos=2,
    bos_text="<s>",
    eos_text="</s>",
    add_bos=True,
    chat_templates={"default": CHATML},
    description="tiny",
    device="cpu (scripted, 1 thread)",
    provider="cpu",
    variant="scripted",
    threads=1,
    layers_offloaded=0,
    layers_total=2,
    flash_attention=False,
    memory=MemoryBreakdown(1, 2, 3, 4),
    load_seconds=0.5,
)


@dataclass
class Script:
    """What the engine does with every request."""

    pieces: list[str] = field(default_factory=lambda: ["Hello", ", ", "world", "!"])
    reason: FinishReason = "stop"
    message: str | None = None
    refuse: Exception | None = None
    gate: asyncio.Event | None = None
    """Where set: waited for before each piece but the first."""
    first_gate: asyncio.Event | None = None
    """Where set: waited for before the first piece."""
    stop: str | None = None
    """The stop string that ends each choice."""
    embedding: tuple[float, ...] = (0.6, 0.8)
    scores: tuple[float, ...] = (-1.0, 2.0, 0.0)
    """Of a reranker, in turns."""


class ScriptedGeneration:
    prompt_tokens = 7

    def __init__(self, engine: "ScriptedEngine", request: GenerateRequest) -> None:
        self._engine = engine
        self._request = request
        self._events = self._run()
        self.finished = False
        self.cancelled = False

    async def _run(self) -> AsyncIterator[Event]:
        script, request = self._engine.script, self._request
        count = 0
        if script.first_gate is not None:
            await script.first_gate.wait()
        for index, piece in enumerate(script.pieces[: request.max_tokens]):
            if script.gate is not None and index:
                await script.gate.wait()
            await asyncio.sleep(0)
            count += 1
            for choice in range(request.n):
                yield Delta(1, choice, piece, [index], self._logprobs(index, piece))
        for choice in range(request.n):
            yield ChoiceFinished(1, choice, script.reason, count, script.stop)
        self.finished = True
        yield RequestFinished(1, Usage(7, 3, count * request.n), Timings(0.0, 0.1, 0.2), script.message)

    def _logprobs(self, token: int, piece: str) -> list[TokenLogprobs] | None:
        if self._request.logprobs is None:
            return None
        chosen = TokenLogprob(token, piece.encode(), -0.5)
        return [TokenLogprobs(chosen, [chosen] * self._request.logprobs)]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._events.__anext__()

    def cancel(self) -> None:
        self.cancelled = not self.finished

    def pending(self) -> list[Event]:
        return []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        await self._events.aclose()  # type: ignore[attr-defined]


class ScriptedEngine:
    def __init__(self, script: Script | None = None, info: Loaded = LOADED) -> None:
        self.script = script or Script()
        self.info = info
        self.state: EngineState = "Ready"
        self.failure: str | None = None
        self.failure_reason: LoadFailureReason = "EngineFailed"
        self.stats = Stats(running=1, kv_cells=8192, prompt_tokens=70, generated_tokens=30)
        self.restarts = 0
        self.pid: int | None = os.getpid()
        self.stalled_seconds = 0.0
        self.requests: list[GenerateRequest] = []
        self.embeddings: list[EmbedRequest] = []
        self.rankings: list[RankRequest] = []
        self.scores: list[ScoreRequest] = []
        self.scores_left = 0
        """Cancelled before they were answered."""
        self.generations: list[ScriptedGeneration] = []
        self._failed = asyncio.Event()
        self.loaded = asyncio.Event()
        self.loaded.set()

    async def start(self) -> None:
        return

    async def ready(self) -> Loaded:
        await self.loaded.wait()
        return self.info

    async def failed(self) -> str:
        await self._failed.wait()
        return self.failure or "?"

    def fail(self, why: str, reason: LoadFailureReason = "EngineFailed") -> None:
        self.state, self.failure, self.failure_reason = "Failed", why, reason
        self._failed.set()

    async def generate(self, request: GenerateRequest) -> ScriptedGeneration:
        if self.script.refuse is not None:
            raise self.script.refuse
        self.requests.append(request)
        generation = ScriptedGeneration(self, request)
        self.generations.append(generation)
        return generation

    async def embed(self, request: EmbedRequest) -> Embedded:
        if self.script.refuse is not None:
            raise self.script.refuse
        self.embeddings.append(request)
        return Embedded(
            1, [struct.pack("<2f", *self.script.embedding)] * len(request.inputs), 3 * len(request.inputs)
        )

    async def rank(self, request: RankRequest) -> Ranked:
        if self.script.refuse is not None:
            raise self.script.refuse
        self.rankings.append(request)
        count = len(request.documents)
        return Ranked(1, list(itertools.islice(itertools.cycle(self.script.scores), count)), 3 * count)

    async def score(self, request: ScoreRequest) -> Scored:
        """A prompt's tokens are its bytes; a text gets `<s>` before it. The n-th of them has a logprob of -n."""
        if self.script.refuse is not None:
            raise self.script.refuse
        self.scores.append(request)
        if self.script.gate is not None:
            try:
                await self.script.gate.wait()
            except asyncio.CancelledError:
                self.scores_left += 1
                raise
        return Scored(1, [self._scored(one, request) for one in request.inputs])

    def _scored(self, prompt: str | list[int], request: ScoreRequest) -> ScoredInput:
        text = prompt.encode() if isinstance(prompt, str) else bytes(prompt)
        first, *rest = [b"<s>"] * request.add_special + [text[i : i + 1] for i in range(len(text))]
        chosen = [TokenLogprob(place, piece, -float(place)) for place, piece in enumerate(rest, 1)]
        return ScoredInput(first, [TokenLogprobs(one, [one] * request.top) for one in chosen])

    async def tokenize(self, prompt: str | Prompt, **_: Any) -> list[int]:
        if self.script.refuse is not None:
            raise self.script.refuse
        parts = [prompt] if isinstance(prompt, str) else prompt
        return [byte for part in parts if isinstance(part, str) for byte in part.encode()]

    async def detokenize(self, tokens: list[int]) -> str:
        if self.script.refuse is not None:
            raise self.script.refuse
        return bytes(tokens).decode()

    async def close(self) -> None:
        if self.state != "Failed":
            self.state = "Closing"
        if not self.loaded.is_set():
            raise EngineUnavailable("closed")


def config(**changes: Any) -> RuntimeConfig:
    model = ModelConfig(name=MODEL, source="https://example.org/tiny.gguf")
    return RuntimeConfig(**{"model": model, "auth": AuthMode.NONE, **changes})


@dataclass
class Running:
    serving: Serving
    engine: ScriptedEngine
    base: str

    @property
    def port(self) -> int:
        return int(self.base.rsplit(":", 1)[1])


class Inline(TemplateRenderer):
    """Renders here and now: no process to start for each test."""

    async def render(self, template: str, variables: dict[str, Any]) -> str:
        answer = render(template, variables)
        if "error" in answer:
            raise TemplateFailed(answer["kind"], answer["error"])  # type: ignore[arg-type]
        return answer["text"]


@contextlib.asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    """Serve as the product does, less the fifth of a second that uvicorn takes to stop."""
    config, state = Server(app).config, ServerState()
    config.load()
    listener = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config=config, server_state=state, app_state={}), sock=listener
    )
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks)


@contextlib.asynccontextmanager
async def running(
    engine: ScriptedEngine | None = None, *, keys: Path | None = None, ready: bool = True, **changes: Any
) -> AsyncIterator[Running]:
    """A whole API with its two ports, its engine scripted."""
    engine = engine or ScriptedEngine()
    serving = Serving(
        config=config(auth=AuthMode.NONE if keys is None else AuthMode.API_KEY, **changes),
        model=FACTS,
        engine=engine,
        keys=None if keys is None else KeyRing(keys, refresh=0),
    )
    if ready:
        serving.chat = await ChatFormat.of(engine.info, Inline(), serving.prompt)
        serving.performance = await warm_up(ScriptedEngine(info=engine.info), engine.info.load_seconds)
    async with serve(api_app(serving, routes(serving))) as base:
        yield Running(serving, engine, base)


async def until(true: Callable[[], bool]) -> None:
    """Wait for a state of the world that something in the background brings about."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if b"connection: close" not in data and data.endswith(b"\r\n\r\n"):
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def post(path: str, body: Any) -> bytes:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        len(content),
        content,
    )
