"""A batch whose arrays are ours, filled by slices: 0.4 µs for 512 tokens, against 100 element by element."""

import ctypes
from collections.abc import Sequence

import numpy as np
from llama_cpp import llama_cpp as native

from slm_runtime.engine.protocol import Span


class Batch:
    """Up to `capacity` tokens, each of one sequence."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._sequence = np.zeros(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        self._counts = np.ones(capacity, np.int32)
        self._offsets = np.arange(capacity, dtype=np.int32)
        # llama.cpp wants, for each token, a pointer to its list of sequences: into its place of the array.
        first = self._sequence.ctypes.data
        self._lists = np.arange(first, first + 4 * capacity, 4, dtype=np.uint64)
        self.native = native.llama_batch(
            n_tokens=0,
            token=self._token.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=self._position.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._lists.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, spans: Sequence[Span]) -> int:
        """Returns how many rows they want."""
        start = rows = 0
        for span in spans:
            end = start + len(span.tokens)
            self._token[start:end] = span.tokens
            if end - start == 1:
                self._position[start] = span.position
            else:
                self._position[start:end] = self._offsets[: end - start]
                self._position[start:end] += span.position
            self._sequence[start:end] = span.sequence
            self._logits[start:end] = 0
            self._logits[end - span.rows : end] = 1
            rows += span.rows
            start = end
        self.native.n_tokens = start
        return rows
