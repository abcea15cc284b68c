"""From Foundry Local's JSON, key by key."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from kubectl_slm.others.bounds import QUANTIZATIONS, number
from kubectl_slm.others.converted import Draft, NotConverted
from kubectl_slm.others.foundry.hardware import prefer
from kubectl_slm.others.foundry.names import catalog_source

Key = Callable[[Draft, int | None, str, Any], None]
"""Takes the draft, the line, the key's path and its value."""

_TOGETHER: Final = "runtime.parallel"
_QUANTIZED: Final[Mapping[str, str]] = {
    "dynamic": "Auto",
    "auto": "Auto",
    "int4": "Q4_K_M",
    "int8": "Q8_0",
    "fp16": "F16",
    "float16": "F16",
    "bf16": "BF16",
    **{each.lower(): each for each in QUANTIZATIONS},
}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


def configure(draft: Draft, text: str) -> None:
    """Put each key of a deployment's or performance configuration where it belongs, or note why not.

    Raises
    ------
    NotConverted
        It is no JSON object.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        document = None
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise NotConverted(line, f"it is no JSON: {error}", "Correct it, or name another file.") from None
    if not isinstance(document, dict):
        raise NotConverted(
            1, "it is no JSON object", 'Write {"deployment": {"model": ...}} as Foundry Local reads it.'
        )
    for path, value in _leaves(document, ""):
        name = path.rpartition(".")[2]
        line = next((number for number, each in enumerate(text.splitlines(), 1) if f'"{name}"' in each), None)
        key = KEYS.get(path)
        if key is None:
            draft.note(
                line,
                path,
                "Foundry Local's configuration has no such key that is known here; it was left out",
            )
        else:
            key(draft, line, path, value)


def _leaves(document: Mapping[str, Any], above: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and path not in KEYS and depth < 8:
            yield from _leaves(value, f"{path}.", depth + 1)
        else:
            yield path, value


def _model(draft: Draft, line: int | None, path: str, value: Any) -> None:
    del path
    draft.put("model.source", catalog_source(draft, line, str(value)))


def _hardware(draft: Draft, line: int | None, path: str, value: Any) -> None:
    prefer(draft, line, path, value if isinstance(value, list) else [value])


def _quantization(draft: Draft, line: int | None, path: str, value: Any) -> None:
    wanted = _QUANTIZED.get(str(value).lower())
    if wanted is not None:
        draft.put("model.quantization", wanted)
    elif str(value).lower() in {"none", "false", "fp32"}:
        draft.note(
            line,
            f"{path} {value}",
            "the model is served as its source has it: spec.model.quantization is left out",
        )
    else:
        known = ", ".join(_QUANTIZED)
        draft.note(
            line,
            f"{path} {value}",
            f"spec.model.quantization takes Auto and names of formats, here {known}; it was left out",
        )


def _number(field: str) -> Key:
    def put(draft: Draft, line: int | None, path: str, value: Any) -> None:
        try:
            draft.put(field, number(field, value))
        except ValueError as error:
            draft.note(line, f"{path} {value}", str(error))

    return put


def _together(draft: Draft, line: int | None, path: str, value: Any) -> None:
    """How many requests are computed together: the smallest that is said anywhere."""
    there = draft.get(_TOGETHER)
    _number(_TOGETHER)(draft, line, path, value)
    said = draft.get(_TOGETHER)
    if there is not None and said is not None and said != there:
        smallest = min(there, said)
        draft.put(_TOGETHER, smallest)
        draft.note(
            line,
            f"{path} {value}",
            f"spec.{_TOGETHER} is how many requests are computed together; of what is said of it the smallest counts, "
            f"{smallest}; more of them wait in turn",
        )


def _one_by_one(draft: Draft, line: int | None, path: str, value: Any) -> None:
    if value is False:
        draft.put(_TOGETHER, 1)
        draft.note(line, f"{path} false", f"requests are computed one after the other: spec.{_TOGETHER} 1")
    else:
        draft.note(
            line,
            f"{path} {_shown(value)}",
            f"requests are always batched, step by step; spec.{_TOGETHER} says how many",
        )


def _always(what: str) -> Key:
    def noted(draft: Draft, line: int | None, path: str, value: Any) -> None:
        why = f"{what} always" if value is True else f"{what} always; it can't be switched off"
        draft.note(line, f"{path} {_shown(value)}", why)

    return noted


def _cache_size(draft: Draft, line: int | None, path: str, value: Any) -> None:
    size = _SIZE.fullmatch(str(value))
    if size is None or isinstance(value, bool):
        draft.note(
            line,
            f"{path} {value}",
            "spec.runtime.kvCacheMemory takes a quantity such as 4G or 4Gi; it was left out",
        )
        return
    unit = size[2].upper()
    draft.put(
        "runtime.kvCacheMemory",
        f"{size[1]}{'k' if unit == 'K' and not size[3] else unit}{size[3].lower() if unit else ''}",
    )


def _shown(value: Any) -> str:
    return json.dumps(value)


_PERFORMANCE: Final = "performance"
_MEMORY: Final = f"{_PERFORMANCE}.memory_optimization"
_SCHEDULING: Final = f"{_PERFORMANCE}.hardware_scheduling"
_OPTIMIZATION: Final = "deployment.optimization"
KEYS: Final[Mapping[str, Key]] = {
    "deployment.model": _model,
    "deployment.hardware.preferred": _hardware,
    "deployment.hardware.fallback": _hardware,
    f"{_OPTIMIZATION}.quantization": _quantization,
    f"{_OPTIMIZATION}.batch_size": _together,
    f"{_OPTIMIZATION}.max_context": _number("runtime.contextLength"),
    "deployment.api.port": _number("endpoint.port"),
    "deployment.api.openai_compatible": _always("OpenAI's routes are served"),
    f"{_PERFORMANCE}.batch_processing": _one_by_one,
    f"{_PERFORMANCE}.parallel_requests": _together,
    f"{_MEMORY}.enable_kv_cache": _always("keys and values are cached"),
    f"{_MEMORY}.max_cache_size": _cache_size,
    f"{_SCHEDULING}.enable_dynamic_batching": _one_by_one,
    f"{_SCHEDULING}.max_batch_size": _together,
}
"""All that Foundry Local's deployment and performance configurations have."""
