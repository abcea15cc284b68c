"""Batches whose arrays are ours, filled by slices: 0.4 µs for 512 tokens, against 100 element by element."""

import ctypes
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from llama_cpp import llama_cpp as native
from numpy.typing import NDArray

from slm_runtime.engine.llama_cpp.positions import Positions
from slm_runtime.engine.protocol import Rows, Span

Grid: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int32]]


class _Places:
    """Up to `capacity` places, each of one sequence, with the positions that they have on each of some axes."""

    def __init__(self, capacity: int, axes: int = 1) -> None:
        self._position = np.zeros(capacity * axes, np.int32)
        self._sequence = np.zeros(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        self._counts = np.ones(capacity, np.int32)
        self._offsets = np.arange(capacity, dtype=np.int32)
        # llama.cpp wants, for each place, a pointer to its list of sequences: into its place of the array.
        first = self._sequence.ctypes.data
        self._lists = np.arange(first, first + 4 * capacity, 4, dtype=np.uint64)

    def _native(self, **content: Any) -> Any:
        return native.llama_batch(
            n_tokens=0,
            pos=_pointer(self._position, ctypes.c_int32),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=self._lists.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=_pointer(self._logits, ctypes.c_int8),
            **content,
        )

    def _place(self, span: Span, start: int, end: int) -> None:
        self._sequence[start:end] = span.sequence
        self._logits[start:end] = 0
        self._logits[end - span.rows : end] = 1


class Batch(_Places):
    """Of tokens."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._token = np.zeros(capacity, np.int32)
        self.native = self._native(token=_pointer(self._token, ctypes.c_int32), embd=None)

    def fill(self, spans: Sequence[Span], positions: Positions) -> int:
        """Returns how many rows they want."""
        start = rows = 0
        for span in spans:
            end = start + len(span.tokens)
            self._token[start:end] = span.tokens
            first = positions.of(span.sequence, span.position)
            if end - start == 1:
                self._position[start] = first
            else:
                self._position[start:end] = self._offsets[: end - start]
                self._position[start:end] += first
            self._place(span, start, end)
            rows += span.rows
            start = end
        self.native.n_tokens = start
        return rows


class MediaBatch(_Places):
    """Of what media are encoded to."""

    def __init__(self, capacity: int, width: int, axes: int) -> None:
        """Prepare.

        Parameters
        ----------
        width
            Numbers that stand for a token.
        axes
            Numbers that say where a token is: 1, or time, row, column and one more.
        """
        super().__init__(capacity, axes)
        self._axes = axes
        self._hidden = np.zeros((capacity, width), np.float32)
        self.native = self._native(token=None, embd=_pointer(self._hidden, ctypes.c_float))

    def fill(
        self, spans: Sequence[Span], grids: Sequence[Grid], encoded: Sequence[Rows], positions: Positions
    ) -> int:
        """Returns how many rows they want.

        Parameters
        ----------
        grids
            Of each span's medium: where each of its tokens is, by time, row and column, from where the medium begins.
        encoded
            Likewise, what stands for them.
        """
        total = sum(len(span.tokens) for span in spans)
        places = self._position[: total * self._axes].reshape(self._axes, total)
        places[3:] = 0
        start = rows = 0
        for span, grid, hidden in zip(spans, grids, encoded, strict=True):
            end = start + len(span.tokens)
            medium_start = span.medium.start if span.medium is not None else span.position
            part = slice(span.position - medium_start, span.position - medium_start + end - start)
            self._hidden[start:end] = hidden[part]
            known = min(self._axes, 3)
            places[:known, start:end] = grid[:known, part]
            places[:known, start:end] += positions.of(span.sequence, medium_start)
            self._place(span, start, end)
            rows += span.rows
            start = end
        self.native.n_tokens = total
        return rows


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
