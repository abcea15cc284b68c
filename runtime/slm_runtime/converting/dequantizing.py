"""The numbers in ggml's blocks, by numpy.

Every function takes the bytes of many blocks, `[blocks, bytes of a block]`, and answers their numbers,
`[blocks, numbers of a block]` in float32: the same ones as ggml's own reference, bit by bit.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from slm_runtime.models.ggml import BLOCKS

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIZES: Final[Mapping[str, tuple[int, int]]] = {name: (count, size) for name, count, size in BLOCKS.values()}
"""Numbers in a block, and its bytes."""


def dequantize(kind: str, raw: Bytes) -> Floats:
    """Numbers of rows of `raw`, `[rows, bytes of a row]`, in one of :data:`DEQUANTIZERS`."""
    _, size = SIZES[kind]
    blocks = raw.reshape(-1, size)
    return DEQUANTIZERS[kind](blocks).reshape(len(raw), -1)


def halves(raw: Bytes) -> Floats:
    """Half-precision numbers, two bytes each."""
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def nibbles(raw: Bytes) -> Bytes:
    """Lower halves of the bytes, then the upper ones."""
    return np.concatenate([raw & 0x0F, raw >> 4], axis=-1)


def _f32(raw: Bytes) -> Floats:
    return np.ascontiguousarray(raw).view(np.float32)


def _bf16(raw: Bytes) -> Floats:
    return (np.ascontiguousarray(raw).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _q8_0(raw: Bytes) -> Floats:
    return halves(raw[:, :2]) * np.ascontiguousarray(raw[:, 2:]).view(np.int8)


def _q4_0(raw: Bytes) -> Floats:
    return halves(raw[:, :2]) * (nibbles(raw[:, 2:]).astype(np.int8) - 8)


def _q4_1(raw: Bytes) -> Floats:
    return halves(raw[:, :2]) * nibbles(raw[:, 4:]) + halves(raw[:, 2:4])


def _fifth_bits(raw: Bytes) -> Bytes:
    """One bit for each of 32 numbers, to where the fifth bit is."""
    return np.unpackbits(raw, axis=1, bitorder="little") << np.uint8(4)


def _q5_0(raw: Bytes) -> Floats:
    codes = nibbles(raw[:, 6:]) | _fifth_bits(raw[:, 2:6])
    return halves(raw[:, :2]) * (codes.astype(np.int8) - 16)


def _q5_1(raw: Bytes) -> Floats:
    codes = nibbles(raw[:, 8:]) | _fifth_bits(raw[:, 4:8])
    return halves(raw[:, :2]) * codes + halves(raw[:, 2:4])


def _six_bit_scales(raw: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of six bits each, in twelve bytes."""
    first, second, last = raw[:, :4], raw[:, 4:8], raw[:, 8:]
    scales = np.concatenate([first & 63, (last & 15) | ((first >> 6) << 4)], axis=1)
    minima = np.concatenate([second & 63, (last >> 4) | ((second >> 6) << 4)], axis=1)
    return scales, minima


def _of_eight(raw: Bytes, codes: Bytes) -> Floats:
    """Blocks of 256 whose eight parts, `codes`, have a scale and a minimum each."""
    scales, minima = _six_bit_scales(raw[:, 4:16])
    factor = (halves(raw[:, :2]) * scales)[..., None]
    least = (halves(raw[:, 2:4]) * minima)[..., None]
    return (factor * codes - least).reshape(len(raw), 256)


def _nibbles_of_256(raw: Bytes) -> Bytes:
    return nibbles(raw.reshape(len(raw), 4, 32)).reshape(len(raw), 8, 32)


def _q4_k(raw: Bytes) -> Floats:
    return _of_eight(raw, _nibbles_of_256(raw[:, 16:]))


def _q5_k(raw: Bytes) -> Floats:
    bits = raw[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    return _of_eight(raw, _nibbles_of_256(raw[:, 48:]) | bits << np.uint8(4))


def _q6_k(raw: Bytes) -> Floats:
    low = nibbles(raw[:, :128].reshape(-1, 2, 64)).reshape(-1, 8, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (raw[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & np.uint8(3)).reshape(-1, 8, 32)
    codes = (low | high << 4).astype(np.int8) - 32
    scales = np.ascontiguousarray(raw[:, 192:208]).view(np.int8)
    factors = halves(raw[:, 208:]) * scales
    return (factors[..., None] * codes.reshape(-1, 16, 16)).reshape(-1, 256)


DEQUANTIZERS: Final[Mapping[str, Callable[[Bytes], Floats]]] = {
    "F32": _f32,
    "F16": halves,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
"""The formats that are read."""
