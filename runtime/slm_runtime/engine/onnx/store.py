"""Keys and values of all sequences: an array a block, a row a sequence, read and written in place by the graph."""

import math
import mmap
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from slm_runtime.engine.onnx.decoder import Cache
from slm_runtime.engine.onnx.places import Run
from slm_runtime.engine.onnx.session import Graph

_BOUND: Final = 64
"""Runs of rows that stay bound: to bind one takes some ten microseconds a block."""


class Store:
    """Memory is asked for at once, and taken from the system page by page as rows grow."""

    def __init__(self, graph: Graph, caches: tuple[Cache, ...], rows: int, tokens: int) -> None:
        """`tokens`: that a row can hold."""
        self._session = graph.session
        self._caches = caches
        self._arrays = [_array((rows, cache.heads, tokens, cache.size), cache.element) for cache in caches]
        self._bindings: dict[tuple[Run, str], ort.IOBinding] = {}
        self.bytes = sum(array.nbytes for array in self._arrays)

    def binding(self, run: Run, output: str) -> ort.IOBinding:
        """Where the graph finds what these rows hold, and leaves it; it gives the named output beside that."""
        found = self._bindings.get((run, output))
        if found is None:
            if len(self._bindings) >= _BOUND:
                self._bindings.clear()
            found = self._bindings[run, output] = self._bind(run)
        return found

    def copy(self, source: int, target: int, length: int) -> None:
        for array in self._arrays:
            array[target, :, :length] = array[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Let them change places, as far as either holds something."""
        for array in self._arrays:
            kept = array[one, :, :length].copy()
            array[one, :, :length] = array[other, :, :length]
            array[other, :, :length] = kept

    def _bind(self, run: Run) -> ort.IOBinding:
        binding = self._session.io_binding()
        for cache, array in zip(self._caches, self._arrays, strict=True):
            value = ort.OrtValue.ortvalue_from_numpy(array[run.start : run.end])
            binding.bind_ortvalue_input(cache.past, value)
            binding.bind_ortvalue_output(cache.present, value)
        return binding


def _array(shape: tuple[int, ...], element: np.dtype[Any]) -> NDArray[Any]:
    """Of small pages: of large ones, which numpy asks for, the first token of each head would take a whole one."""
    memory = mmap.mmap(-1, math.prod(shape) * element.itemsize)
    return np.frombuffer(memory, element).reshape(shape)
