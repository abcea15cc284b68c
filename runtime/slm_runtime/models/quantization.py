"""Which number formats are derived from which, and what a derived model is."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from slm_contract.config import Quantization
from slm_contract.report import ModelFacts, Origin
from slm_runtime.errors import UnsupportedQuantization
from slm_runtime.models.encrypted import is_encrypted
from slm_runtime.models.ggml import FILE_TYPES

FILE_TYPE: Final[Mapping[str, int]] = {name: number for number, name in FILE_TYPES.items()}
"""As llama.cpp numbers them."""
REQUANTIZED: Final = Quantization.Q8_0.value
"""The one quantized format that little enough is lost in to derive another from it."""
MAX_STEM: Final = 160
_SIXTEEN_BITS: Final = frozenset({Quantization.F16, Quantization.BF16})
_DERIVED: Final[Mapping[str, frozenset[Quantization]]] = {
    "F32": frozenset(Quantization),
    "F16": frozenset(Quantization) - _SIXTEEN_BITS,
    "BF16": frozenset(Quantization) - _SIXTEEN_BITS,
    REQUANTIZED: frozenset(Quantization) - _SIXTEEN_BITS - {Quantization.Q8_0},
}
"""By what the source has: a smaller format of a larger one, never the other way."""
_LARGER: Final = ("F16", "BF16", "F32", REQUANTIZED)
"""From which to derive where there are several: F32 has as a rule no more in it than the smaller two."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}")


def is_derived(source: ModelFacts, wanted: Quantization) -> bool:
    """Whether a model has to be derived; not where the source has it in the format that is wanted.

    Raises
    ------
    UnsupportedQuantization
        It can't be.
    """
    if any(is_encrypted(each.path) for each in source.files):
        raise UnsupportedQuantization(
            f"{source.file_name} is encrypted, and what is encrypted never lies in plain on a volume:"
            f" no {wanted.value} can be derived of it there.",
            "Encrypt the model in the format that is wanted, and leave out spec.model.quantization.",
        )
    if source.quantization == wanted.value:
        return False
    if source.own_adapters:
        raise UnsupportedQuantization(
            f"{source.file_name} comes with adapters, which are made for it as it is: no {wanted.value} is derived of it.",
            "Leave out spec.model.quantization, or merge the adapters into the model.",
        )
    if wanted in _DERIVED.get(source.quantization or "", frozenset()):
        return True
    if source.quantization in _DERIVED:
        raise UnsupportedQuantization(
            f"{source.file_name} is {source.quantization}, which is no larger than {wanted.value}: nothing is gained.",
            f"Name a source that has the model in a larger format than {wanted.value}, or leave out"
            " spec.model.quantization.",
        )
    raise UnsupportedQuantization(
        f"{source.file_name} is quantized already ({source.quantization or 'in a format without a name'}):"
        f" {wanted.value} of that would be worse than {wanted.value} of the model itself.",
    )


def to_derive(source: ModelFacts, formats: Iterable[Quantization], *, strict: bool) -> Quantization | None:
    """The first of some formats that the source has, or that can be derived; None: it is served as it is.

    Parameters
    ----------
    strict
        Whether it may not be served in any other.

    Raises
    ------
    UnsupportedQuantization
        None of them can be.
    """
    for wanted in formats:
        try:
            return wanted if is_derived(source, wanted) else None
        except UnsupportedQuantization:
            if strict:
                raise
    return None


def larger_ones(wanted: Quantization) -> tuple[str, ...]:
    """The formats that it can be derived of, the best first."""
    return tuple(each for each in _LARGER if wanted in _DERIVED[each])


def derived_name(path: str, wanted: Quantization) -> str:
    """What the derived file is called, by the one that an engine would have opened."""
    stem = _SHARD.sub("", PurePosixPath(path).name.removesuffix(".gguf"))
    return f"{stem[:MAX_STEM]}.{wanted.value}.gguf"


def origin_of(source: ModelFacts) -> Origin:
    return Origin(
        quantization=source.quantization or "",
        size_bytes=source.size_bytes,
        sha256=source.sha256,
        files=source.files,
    )


def predicted(source: ModelFacts, wanted: Quantization, weights_bytes: int) -> ModelFacts:
    """What the derived model will be: all but its weights stays as it is."""
    return source.model_copy(
        update={
            "file_name": derived_name(source.file_name, wanted),
            "quantization": wanted.value,
            "weights_bytes": weights_bytes,
            "size_bytes": source.size_bytes - source.weights_bytes + weights_bytes,
            "sha256": None,
            "files": (),
            "origin": origin_of(source),
        }
    )
