"""Matrices in blocks of 32 numbers of four or eight bits, as onnxruntime's MatMulNBits reads them.

A number is `scale * (code - zero)`. The codes of a source that has the same blocks are taken over as they are:
Q4_0's as four bits, Q8_0's as eight. What else there is gets the codes of least squared error that a few tries find.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from slm_runtime.converting.dequantizing import Bytes, Floats, dequantize, halves, nibbles
from slm_runtime.converting.matrix import Matrix
from slm_runtime.errors import UnsupportedQuantization

Bits = Literal[4, 8]

BLOCK: Final = 32
SHRUNK: Final = (1.0, 0.94, 0.88, 0.8)
"""Parts of the range between a block's least and largest number that are tried: outliers cost the others precision."""


@dataclass(frozen=True)
class Codes:
    """Rows of quantized numbers."""

    codes: Bytes
    """`[rows, blocks, bytes]`; of two codes in a byte the first is the lower half."""
    scales: Floats
    """`[rows, blocks]`."""
    zeros: Bytes | None
    """`[rows, bytes]`, two in a byte; None: half of the codes' range."""


def has_zeros(matrix: Matrix, bits: Bits) -> bool:
    """Whether its blocks need zeros of their own."""
    return bits == 4 and matrix.kinds != {"Q4_0"}


def quantized(matrix: Matrix, bits: Bits) -> Iterator[Codes]:
    """Its rows, some at a time.

    Raises
    ------
    UnsupportedQuantization
        Its rows can't be cut into blocks.
    """
    if matrix.columns % BLOCK:
        raise UnsupportedQuantization(
            f"A matrix of {matrix.rows} by {matrix.columns} numbers can't be cut into blocks of {BLOCK}.",
            "Convert it with `--precision fp32`.",
        )
    exact = {(4, "Q4_0"): _of_q4_0, (8, "Q8_0"): _of_q8_0}
    whole = not has_zeros(matrix, bits)
    for kind, raw in matrix.chunks():
        if whole and (taken := exact.get((bits, kind))):
            yield taken(raw)
            continue
        blocks = dequantize(kind, raw).reshape(len(raw), -1, BLOCK)
        yield _eight_bits(blocks) if bits == 8 else _four_bits(blocks)


def _of_q4_0(raw: Bytes) -> Codes:
    blocks = raw.reshape(len(raw), -1, 18)
    return Codes(_packed(nibbles(blocks[..., 2:])), halves(blocks[..., :2])[..., 0], None)


def _of_q8_0(raw: Bytes) -> Codes:
    blocks = raw.reshape(len(raw), -1, 34)
    return Codes(blocks[..., 2:] ^ np.uint8(0x80), halves(blocks[..., :2])[..., 0], None)


def _eight_bits(blocks: Floats) -> Codes:
    scales = np.abs(blocks).max(axis=-1) / np.float32(127)
    codes = np.rint(blocks * _inverse(scales)[..., None]) + 128
    return Codes(codes.astype(np.uint8), scales, None)


def _four_bits(blocks: Floats) -> Codes:
    least = np.minimum(blocks.min(axis=-1), 0)
    largest = np.maximum(blocks.max(axis=-1), 0)
    best = _Best(blocks)
    for part in SHRUNK:
        scales = (largest - least) * np.float32(part / 15)
        best.offer(scales, np.clip(np.rint(-least * np.float32(part) * _inverse(scales)), 0, 15))
    # One end of the range met exactly, and zero in the middle.
    extreme = np.where(-least > largest, least, largest)
    best.offer(extreme / np.float32(-8), np.full_like(least, 8))
    zeros = best.zeros.astype(np.uint8)
    zeros = np.pad(zeros, ((0, 0), (0, blocks.shape[-2] % 2)))
    return Codes(_packed(best.codes), best.scales, _packed(zeros))


class _Best:
    """The codes with the least squared error so far, block by block."""

    def __init__(self, blocks: Floats) -> None:
        self._blocks = blocks
        shape = blocks.shape[:-1]
        self._error = np.full(shape, np.inf, np.float32)
        self.codes = np.zeros(blocks.shape, np.uint8)
        self.scales = np.zeros(shape, np.float32)
        self.zeros = np.zeros(shape, np.float32)

    def offer(self, scales: Floats, zeros: Floats) -> None:
        codes = np.rint(self._blocks * _inverse(scales)[..., None])
        codes += zeros[..., None]
        np.clip(codes, 0, 15, out=codes)
        centred = codes - zeros[..., None]
        # The scale that fits these codes best.
        norms = np.einsum("rbi,rbi->rb", centred, centred)
        fitted = np.einsum("rbi,rbi->rb", centred, self._blocks) * _inverse(norms)
        centred *= fitted[..., None]
        centred -= self._blocks
        error = np.einsum("rbi,rbi->rb", centred, centred)
        better = error < self._error
        self._error[better] = error[better]
        self.codes[better] = codes[better].astype(np.uint8)
        self.scales[better] = fitted[better]
        self.zeros[better] = zeros[better]


def _inverse(numbers: Floats) -> Floats:
    found: Floats = np.divide(1, numbers, out=np.zeros_like(numbers), where=numbers != 0)
    return found


def _packed(codes: Bytes) -> Bytes:
    """Two neighbours in a byte."""
    packed: Bytes = codes[..., 0::2] | codes[..., 1::2] << np.uint8(4)
    return packed
