"""LoRA adapters: loaded beside the model, and one of them at a time is part of what a context computes."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as native

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp.logs import NativeLog
from slm_runtime.engine.loading import AdapterFile, EngineConfig

_Scaled = tuple[Any, float]
"""An adapter, and how much of it counts."""


class Adapters:
    """They belong to the model, and are freed with it."""

    def __init__(self, model: Any, config: EngineConfig, log: NativeLog) -> None:
        """Load them all.

        Raises
        ------
        LoadError
            One is no adapter, or not of this model.
        """
        own = [_load(model, file, log) for file in config.own_adapters]
        named = [_load(model, file, log) for file in config.adapters]
        self._sets = [_arguments(own), *(_arguments([*own, each]) for each in named)]
        self._used = -1
        """Number of the set that the context has."""

    def use(self, context: Any, number: int) -> None:
        """Let the context's next steps go through the model's own, and one of the others, counted from 1; 0: none."""
        if number != self._used:
            native.llama_set_adapters_lora(context, *self._sets[number])
            self._used = number


def _arguments(scaled: Sequence[_Scaled]) -> tuple[Any, int, Any]:
    """What the library wants of a set: an array of adapters, how many, and an array of their scales."""
    if not scaled:
        return None, 0, None
    adapters, scales = zip(*scaled, strict=True)
    count = len(scaled)
    return (
        (native.llama_adapter_lora_p_ctypes * count)(*adapters),
        count,
        (ctypes.c_float * count)(*scales),
    )


def _load(model: Any, file: AdapterFile, log: NativeLog) -> _Scaled:
    name = Path(file.path).name
    if not Path(file.path).is_file():
        raise LoadError("InvalidModel", f"there is no adapter file {file.path}")
    adapter = native.llama_adapter_lora_init(model, file.path.encode())
    if not adapter:
        why = " ".join(log.errors) or "no reason given"
        raise LoadError("InvalidModel", f"{name} is no LoRA adapter of this model: {why}")
    if native.llama_adapter_get_alora_n_invocation_tokens(adapter):
        raise LoadError(
            "UnsupportedArchitecture",
            f"{name} is an activated LoRA (aLoRA), which counts from certain tokens of a prompt on: that isn't served",
        )
    return adapter, file.scale
