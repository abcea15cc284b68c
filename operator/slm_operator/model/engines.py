"""Which engine runs which format of model, and what a spec may ask of each."""

from collections.abc import Mapping
from typing import Final

from slm_contract.config import EngineName, KVCacheType, ModelConfig, ModelFormat
from slm_contract.report import ModelFacts
from slm_operator.crd.spec import Spec

ENGINES: Final[Mapping[str, EngineName]] = {
    ModelFormat.GGUF.value: EngineName.LLAMA_CPP,
    ModelFormat.ONNX.value: EngineName.ONNX_RUNTIME,
}
"""By format."""


def format_of(artifact: ModelConfig, header: ModelFacts | None) -> str | None:
    """As its header was read, else as the spec has it; None: nobody knows yet."""
    if header is not None:
        return header.format
    return None if artifact.format is ModelFormat.AUTO else artifact.format.value


def engine_of(artifact: ModelConfig, header: ModelFacts | None) -> EngineName | None:
    """What runs it; None: nobody knows yet."""
    known = format_of(artifact, header)
    return None if known is None else ENGINES[known]


def unmet(spec: Spec, artifact: ModelConfig, engine: EngineName, kv_type: str | None) -> str | None:
    """What a spec asks for that an engine hasn't; None: it has all.

    Parameters
    ----------
    kv_type
        Number format in which the model's graph keeps keys and values; None: it isn't known, or whoever serves chooses.
    """
    if engine is EngineName.LLAMA_CPP:
        return None
    model, asked = spec.model, spec.runtime.kv_cache_type
    fields = {
        "model.adapters": bool(model.adapters),
        "model.projector": model.projector is not None,
        "model.quantization": artifact.quantization is not None,
        "model.decryption": model.decryption is not None,
        f"runtime.kvCacheType {asked.value if asked else ''}": asked not in {None, _as_kept(kv_type)},
    }
    found = [name for name, wanted in fields.items() if wanted]
    return f"{engine.value} has no {', '.join(found)}" if found else None


def _as_kept(kv_type: str | None) -> KVCacheType | None:
    return next((each for each in KVCacheType if each.value == kv_type), None)
