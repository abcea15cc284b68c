"""Chooses by the folder how onnxruntime runs its graph."""

from pathlib import Path

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import EngineConfig, Loaded
from slm_runtime.engine.onnx.encoder import OnnxEncoder
from slm_runtime.engine.onnx.engine import OnnxEngine
from slm_runtime.engine.onnx.folder import Folder


def load(config: EngineConfig) -> tuple[OnnxEngine | OnnxEncoder, Loaded]:
    """Raise LoadError for a folder that can't be served."""
    if config.adapters or config.own_adapters:
        raise LoadError("UnsupportedArchitecture", "onnxruntime takes no LoRA adapters beside a graph")
    if config.projector:
        raise LoadError("UnsupportedArchitecture", "an ONNX graph here sees no images: it takes no projector")
    folder = Folder(Path(config.model_path))
    engine = OnnxEngine(config, folder) if folder.generates else OnnxEncoder(config, folder)
    return engine, engine.info
