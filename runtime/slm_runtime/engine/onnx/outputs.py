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

    def bind(
        self, binding: ort.IOBinding, first: int, shape: tuple[int, int], wanted: Sequence[int]
    ) -> tuple[list[int], int]:
        """Let rows from `first` on be where they go; returns where those that are wanted will be, and the end of all.

        Parameters
        ----------
        shape
            Of the step's tokens: sequences, and tokens of each.
        wanted
            Places among these; some, where rows are chosen.
        """
        given, (sequences, tokens) = self._given, shape
        each = 1 if given.last_only else tokens
        count = len(wanted) if given.chosen else sequences * each
        part = self._array[first : first + count]
        if not given.flat:
            part = part.reshape(sequences, each, given.width)
        binding.bind_ortvalue_output(given.name, ort.OrtValue.ortvalue_from_numpy(part))
        places = range(count) if given.chosen else [place * each // tokens for place in wanted]
        return [first + place for place in places], first + count

    def rows(self, wanted: Sequence[int]) -> Rows:
        """Those that are wanted, in this order: as they are where nothing lies between them."""
        if list(wanted) == list(range(len(wanted))):
            return self._array[: len(wanted)].astype(np.float32, copy=False)
        return self._array[list(wanted)].astype(np.float32, copy=False)
