"""What becomes of each `PARAMETER`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kubectl_slm.others.bounds import PARAMETERS, number
from kubectl_slm.others.converted import Draft

MAX_STOPS: Final = 16
MAX_STOP: Final = 256


@dataclass(frozen=True)
class Kept:
    path: str
    """The field of the spec."""
    default: tuple[str, ...] = ()
    """Values with which Ollama means what an absent field means."""


KEPT: Final[Mapping[str, Kept]] = {
    "num_ctx": Kept("runtime.contextLength"),
    "num_batch": Kept("runtime.batchSize"),
    "num_thread": Kept("runtime.threads", ("0",)),
    "num_gpu": Kept("runtime.gpuLayers", ("-1",)),
    "num_predict": Kept(f"{PARAMETERS}.maxTokens", ("-1", "-2")),
    "temperature": Kept(f"{PARAMETERS}.temperature"),
    "top_k": Kept(f"{PARAMETERS}.topK"),
    "top_p": Kept(f"{PARAMETERS}.topP"),
    "min_p": Kept(f"{PARAMETERS}.minP"),
    "typical_p": Kept(f"{PARAMETERS}.typicalP"),
    "repeat_penalty": Kept(f"{PARAMETERS}.repeatPenalty"),
    "repeat_last_n": Kept(f"{PARAMETERS}.repeatLastN"),
    "frequency_penalty": Kept(f"{PARAMETERS}.frequencyPenalty"),
    "presence_penalty": Kept(f"{PARAMETERS}.presencePenalty"),
    "seed": Kept(f"{PARAMETERS}.seed", ("-1",)),
}
_SAMPLER: Final = "the sampler has no such stage; temperature, top_p and min_p do its work"
_ENGINE: Final = "the engine decides it by the model and the machine"
LEFT_OUT: Final[Mapping[str, str]] = {
    "num_keep": "a request says it (options.num_keep); a deployment has no default of it",
    "mirostat": _SAMPLER,
    "mirostat_tau": _SAMPLER,
    "mirostat_eta": _SAMPLER,
    "tfs_z": _SAMPLER,
    "penalize_newline": "newlines are penalised as other tokens are",
    "main_gpu": "the device plugin gives a pod its GPUs, and the model's buffers go to the first",
    "use_mmap": "model files are always mapped",
    "use_mlock": "a pod's memory limit keeps room for the whole model, and nodes have no swap as a rule",
    "numa": "threads and memory stay on one memory node where they fit",
    "low_vram": "what doesn't fit is known before the pod exists: status.memory; runtime.gpuLayers offloads less",
    "f16_kv": "the KV cache is f16; runtime.kvCacheType takes q8_0 or q4_0",
    "num_gqa": "the model's file says it",
    "rope_frequency_base": "the model's file says it",
    "rope_frequency_scale": "the model's file says it",
    "vocab_only": "it would serve nothing",
    "logits_all": _ENGINE,
    "embedding_only": "embedding models are known by their file",
}
"""Ollama's other ones, those of former releases too."""


def keep(draft: Draft, line: int, name: str, said: str) -> None:
    """Put a parameter where it belongs, or note why not."""
    what = f"PARAMETER {name} {said}"
    known = "num_ctx" if name == "context_length" else name
    if known != name:
        draft.note(
            line, what, "Ollama's name for it is num_ctx; it was taken for that: runtime.contextLength"
        )
    if known == "stop":
        _stop(draft, line, said)
    elif known in LEFT_OUT:
        draft.note(line, what, LEFT_OUT[known])
    elif known not in KEPT:
        draft.note(line, what, "Ollama has no parameter of this name; it was left out")
    elif said in KEPT[known].default:
        draft.note(line, what, f"is what spec.{KEPT[known].path} means where it is left out")
    elif known == "num_gpu" and said == "0":
        draft.put("hardware.preference", ["cpu"])
    else:
        _number(draft, line, what, KEPT[known].path, said)


def _number(draft: Draft, line: int, what: str, path: str, said: str) -> None:
    try:
        draft.put(path, number(path, said))
    except ValueError as error:
        draft.note(line, what, str(error))
        return
    if path == "runtime.gpuLayers":
        draft.note(
            line,
            what,
            f"offloads {said} of the model's layers; leave it out to offload as many as the hardware class says",
        )


def _stop(draft: Draft, line: int, said: str) -> None:
    stops = draft.get("model.prompt.stop") or []
    if not said or len(said) > MAX_STOP or len(stops) == MAX_STOPS:
        draft.note(
            line,
            f"PARAMETER stop {said}",
            f"spec.model.prompt.stop takes {MAX_STOPS} texts of 1 to {MAX_STOP} characters",
        )
    elif said not in stops:
        draft.put("model.prompt.stop", [*stops, said])
