"""Copies of what sequences hold, of models whose sequences can't be cut: what is behind the window is gone, a state is one.

llama.cpp's window cache is as long as so many windows. Its cells are given back here: the library may do it by itself or not
(`tests/cluster/patches/prefix.patch`), nothing depends on it.
"""

import ctypes
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as native
from numpy.typing import NDArray

from slm_runtime.engine.llama_cpp.positions import Positions, Skips
from slm_runtime.engine.protocol import EngineFault, SnapshotSizes

_WHOLE: Final = native.LLAMA_STATE_SEQ_FLAGS_NONE
_PARTIAL: Final = native.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
"""Only what can't be cut: the cells of windowed blocks, the recurrent state."""

_State = NDArray[np.uint8]


class SequenceStates:
    """Saves and restores sequences of one context."""

    def __init__(self, context: Any, positions: Positions) -> None:
        self._context = context
        self._positions = positions
        self._saved: dict[int, tuple[_State, Skips]] = {}

    def save(self, sequence: int, snapshot: int) -> None:
        self._saved[snapshot] = self._state(sequence, _WHOLE), self._positions.saved(sequence)

    def restore(self, snapshot: int, sequence: int) -> None:
        state, skips = self._saved[snapshot]
        self._set(sequence, state, _WHOLE)
        self._positions.restored(sequence, skips)

    def forget(self, snapshot: int) -> None:
        del self._saved[snapshot]

    def shorten(self, sequence: int) -> None:
        """Give back the cells behind the sequence's window: a state has none of them."""
        self._set(sequence, self._state(sequence, _PARTIAL), _PARTIAL)

    def sizes(self, sequence: int) -> tuple[int, int]:
        """Bytes of all that it holds, and of what can't be cut."""
        return self._size(sequence, _WHOLE), self._size(sequence, _PARTIAL)

    def _size(self, sequence: int, flags: int) -> int:
        return int(native.llama_state_seq_get_size_ext(self._context, sequence, flags))

    def _state(self, sequence: int, flags: int) -> _State:
        state = np.empty(self._size(sequence, flags), np.uint8)
        if (
            native.llama_state_seq_get_data_ext(self._context, _bytes(state), len(state), sequence, flags)
            == 0
        ):
            raise EngineFault(f"llama.cpp can't save what sequence {sequence} holds")
        return state

    def _set(self, sequence: int, state: _State, flags: int) -> None:
        if (
            native.llama_state_seq_set_data_ext(self._context, _bytes(state), len(state), sequence, flags)
            == 0
        ):
            raise EngineFault(f"llama.cpp can't restore what sequence {sequence} shall hold")


def sizes_of(one: tuple[int, int], two: tuple[int, int], window: int | None) -> SnapshotSizes:
    """What a snapshot takes, by what one token takes, and two; all that it holds, and what can't be cut.

    Parameters
    ----------
    window
        Tokens that windowed blocks see; None: there are no such blocks.
    """
    each, windowed = two[0] - one[0], two[1] - one[1]
    return SnapshotSizes(
        fixed=one[0] - each, token=each - windowed, window_token=windowed, window=window or 0
    )


def _bytes(state: _State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
