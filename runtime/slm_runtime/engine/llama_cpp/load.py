"""Chooses by the file how llama.cpp runs it."""

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp.encoder import LlamaCppEncoder
from slm_runtime.engine.llama_cpp.engine import LlamaCppEngine
from slm_runtime.engine.llama_cpp.model import LlamaModel
from slm_runtime.engine.loading import EngineConfig, Loaded


def load(config: EngineConfig) -> tuple[LlamaCppEngine | LlamaCppEncoder, Loaded]:
    """Raise LoadError for a file that can't be served."""
    model = LlamaModel(config)
    if model.encodes and (config.adapters or config.own_adapters):
        raise LoadError("InvalidModel", f"{model.description()} is an encoder, which takes no adapters")
    if model.encodes and config.projector:
        raise LoadError("InvalidModel", f"{model.description()} is an encoder, which sees no images")
    engine = LlamaCppEncoder(model) if model.encodes else LlamaCppEngine(model)
    return engine, engine.info
