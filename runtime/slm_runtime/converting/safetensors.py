"""Tensors of safetensors files: a header in JSON, and numbers that are mapped where they lie."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from slm_runtime.converting.matrix import Matrix, Rows
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture, UnsupportedQuantization

MAX_HEADER: Final = 100 << 20
"""Bytes; what the format itself allows."""
FORMATS: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number in those that are read."""
_REMEDY: Final = "Take the file anew from where the model comes from."


def read_safetensors(paths: Iterable[Path], skipped: Iterable[str] = ()) -> dict[str, Matrix]:
    """The tensors of a model's files, by name; those that end with one of `skipped` are none of the model's.

    Raises
    ------
    InvalidModel
        A file is damaged or cut off.
    UnsupportedQuantization
        A tensor is in another format.
    """
    matrices: dict[str, Matrix] = {}
    for path in paths:
        mapped = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        length = int.from_bytes(mapped[:8].tobytes(), "little")
        if len(mapped) < 8 or length > min(MAX_HEADER, len(mapped) - 8):
            raise InvalidModel(f"{path.name} is no safetensors file, or cut off.", _REMEDY)
        try:
            header = json.loads(mapped[8 : 8 + length].tobytes())
            header.pop("__metadata__", None)
            found = {
                name: _matrix(name, entry, mapped[8 + length :])
                for name, entry in header.items()
                if not name.endswith(tuple(skipped))
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidModel(f"The header of {path.name} can't be read: {error!r}.", _REMEDY) from error
        if twice := found.keys() & matrices.keys():
            raise InvalidModel(f"Tensor {min(twice)} is in {path.name} and in another file.", _REMEDY)
        matrices |= found
    return matrices


def _matrix(name: str, entry: dict[str, Any], data: "np.ndarray[Any, np.dtype[np.uint8]]") -> Matrix:
    kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in FORMATS:
        raise UnsupportedQuantization(
            f"Tensor {name} is in the format {kind}; {', '.join(FORMATS)} are read.",
            "Name the model as it was published in BF16, F16 or F32.",
        )
    if len(shape) not in {1, 2}:
        raise UnsupportedArchitecture(
            f"Tensor {name} has {len(shape)} dimensions, which isn't exported.",
            "Convert it with the vendor's own builder.",
        )
    rows, columns = shape if len(shape) == 2 else (1, shape[0])
    if not 0 <= begin < end <= len(data) or end - begin != rows * columns * FORMATS[kind]:
        raise InvalidModel(
            f"The file ends inside tensor {name}, or its size isn't that of its shape.", _REMEDY
        )
    return Matrix((Rows(kind, data[begin:end].reshape(rows, -1)),))
