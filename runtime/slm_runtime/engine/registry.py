"""The engines, by name. Each one's library is imported when it is loaded, and nowhere else."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, cast

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import EngineConfig, EngineKind, Loaded
from slm_runtime.engine.protocol import Encoder, Engine

Load = Callable[[EngineConfig], tuple[Engine | Encoder, Loaded]]
"""Load a model. Raises LoadError for one that can't be served, and EngineFault."""

_MODULES: Final[Mapping[EngineKind, str]] = {
    "LlamaCpp": "slm_runtime.engine.llama_cpp.load",
    "OnnxRuntime": "slm_runtime.engine.onnx.load",
}


def loader(engine: EngineKind) -> Load:
    """Raises LoadError where this image doesn't have what the engine is made of."""
    try:
        return cast("Load", import_module(_MODULES[engine]).load)
    except ModuleNotFoundError as missing:
        raise LoadError(
            "EngineFailed",
            f"this image has no engine {engine}: the module {missing.name} isn't installed in it",
        ) from missing
