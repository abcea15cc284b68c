"""Where a graph leaves what a step yields."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from slm_runtime.engine.onnx.decoder import Given
from slm_runtime.engine.protocol import Rows


class Outputs:
    """Rows of logits, or of hidden states, of one step."""

    def __init__(self, given: Given, rows: int) -> None:
        """`rows`: that a step can yield, wanted or not."""
        self._given = given
        self._array: NDArray[Any] = np.empty((rows, given.width), given.element)
        self.name = given.name
        self.bytes = self._array.nbytes

    def bind(self, binding: ort.IOBinding, first: int, sequences: int, tokens: int) -> int:
        """Let rows from `first` on be where they go; returns how many each sequence yields."""
        given = self._given
        each = 1 if given.last_only else tokens
        shape = (sequences, given.width) if given.flat else (sequences, each, given.width)
        part = self._array[first : first + sequences * each].reshape(shape)
        binding.bind_ortvalue_output(given.name, ort.OrtValue.ortvalue_from_numpy(part))
        return each

    def rows(self, wanted: Sequence[int]) -> Rows:
        """Those that are wanted, in this order: as they are where nothing lies between them."""
        if list(wanted) == list(range(len(wanted))):
            return self._array[: len(wanted)].astype(np.float32, copy=False)
        return self._array[list(wanted)].astype(np.float32, copy=False)
