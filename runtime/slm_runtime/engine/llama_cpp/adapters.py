"""LoRA adapters: loaded beside the model, and one of them at a time is part of what a context computes."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as native

from slm_runtime.engine.llama_cpp.failing import LoadError
from slm_runtime.engine.llama_cpp.logs import NativeLog
from slm_runtime.engine.messages import AdapterFile


class Adapters:
    """They belong to the model, and are freed with it."""

    def __init__(self, model: Any, files: Sequence[AdapterFile], log: NativeLog) -> None:
        """Load them all.

        Raises
        ------
        LoadError
            One is no adapter, or not of this model.
        """
        # A context takes an array of them and an array of their scales: here of one each.
        self._loaded = [
            (
                (native.llama_adapter_lora_p_ctypes * 1)(_load(model, file, log)),
                (ctypes.c_float * 1)(file.scale),
            )
            for file in files
        ]
        self._used = 0

    def use(self, context: Any, number: int) -> None:
        """Let the context's next steps go through one of them, counted from 1; 0: through none."""
        if number == self._used:
            return
        if number == 0:
            native.llama_set_adapters_lora(context, None, 0, None)
        else:
            adapter, scale = self._loaded[number - 1]
            native.llama_set_adapters_lora(context, adapter, 1, scale)
        self._used = number


def _load(model: Any, file: AdapterFile, log: NativeLog) -> Any:
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
    return adapter
