"""Engines with a tiny model each, and what the step loop makes of requests on them."""

from array import array
from pathlib import Path
from typing import Any

import pytest

from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    GenerateRequest,
    RequestFinished,
    Sampling,
    StepOutput,
    Submit,
)
from slm_runtime.engine.prepare import Prepared, Preparer
from slm_runtime.engine.protocol import Engine, Span
from slm_runtime.engine.registry import loader
from slm_runtime.engine.structs import Message
from tests.runtime.engine.accelerators import vulkan
from tests.support.gguf import write_tiny_gguf
from tests.support.onnx import write_tiny_onnx

ENGINES = (
    "LlamaCpp",
    pytest.param("LlamaCpp on Vulkan", marks=pytest.mark.gpu),
    "OnnxRuntime",
)


def make(kind: str, folder: Path, **fields: Any) -> Engine:
    kind, _, provider = kind.partition(" on ")
    if provider:
        fields = {"provider": vulkan().provider, "gpu_layers": -1, **fields}
    path = write_tiny_gguf(folder / "tiny.gguf") if kind == "LlamaCpp" else write_tiny_onnx(folder)
    config = EngineConfig(
        **{"engine": kind, "model_path": str(path), "context_length": 512, "threads": 1, **fields}
    )
    engine, _ = loader(config.engine)(config)
    return engine  # type: ignore[return-value]


def span(sequence: int, position: int, tokens: list[int], *, rows: int = 1) -> Span:
    return Span(sequence, position, array("i", tokens), rows)


def empty(engine: Engine) -> None:
    for number in range(engine.capabilities.sequences):
        engine.cut(number, 0)


class Served:
    """The step loop on an engine that is emptied for it, and all that it sent, by request."""

    def __init__(self, engine: Engine) -> None:
        empty(engine)
        self.tokens: dict[int, list[int]] = {}
        self.text: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.cached: dict[int, int] = {}
        self.preparer = Preparer(engine.vocabulary, engine.capabilities)
        self.loop = StepLoop(engine, self._take, queue_limit=64)

    def ask(self, identity: int, prompt: str, **fields: Any) -> None:
        request = GenerateRequest(
            **{"prompt": [prompt], "sampling": Sampling(temperature=0, seed=1), "max_tokens": 40, **fields}
        )
        prepared = self.preparer.prepare(Submit(identity, request))
        assert isinstance(prepared, Prepared), prepared
        self.tokens[identity], self.text[identity] = [], ""
        self.loop.submit(prepared)

    def drain(self) -> None:
        while not self.loop.idle:
            self.loop.step()

    def _take(self, message: Message) -> None:
        if not isinstance(message, StepOutput):
            return
        for delta in message.deltas:
            self._show(delta)
        for each in message.choices:
            self._end(each)
        for finished in message.finished:
            self._finish(finished)

    def _show(self, delta: Delta) -> None:
        self.tokens[delta.id] += delta.tokens
        self.text[delta.id] += delta.text

    def _end(self, ended: ChoiceFinished) -> None:
        self.reasons[ended.id] = ended.reason

    def _finish(self, finished: RequestFinished) -> None:
        self.cached[finished.id] = finished.usage.cached_tokens
