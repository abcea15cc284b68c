"""Matrices as they lie in a model's file: read when they are written elsewhere, a part at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from slm_runtime.converting.dequantizing import SIZES, Bytes, Floats, dequantize

CHUNK: Final = 1 << 22
"""Numbers that are looked at together."""


@dataclass(frozen=True)
class Rows:
    """Rows in one format."""

    kind: str
    raw: Bytes
    """`[rows, bytes of a row]`, mapped from the file."""
    order: NDArray[np.int64] | None = None
    """Which rows, and in which order; None: as they are."""

    def __len__(self) -> int:
        return len(self.raw if self.order is None else self.order)

    def between(self, first: int, end: int) -> Bytes:
        return self.raw[first:end] if self.order is None else self.raw[self.order[first:end]]


@dataclass(frozen=True)
class Matrix:
    """Rows below each other, of possibly several formats: a row for each output, a column for each input."""

    parts: tuple[Rows, ...]

    @property
    def columns(self) -> int:
        count, size = SIZES[self.parts[0].kind]
        return int(self.parts[0].raw.shape[1]) // size * count

    @property
    def rows(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(part.kind for part in self.parts)

    def reordered(self, order: NDArray[np.int64]) -> "Matrix":
        """The rows of these numbers, of a matrix of one part in the file's own order."""
        (part,) = self.parts
        return Matrix((Rows(part.kind, part.raw, order),))

    def chunks(self) -> Iterator[tuple[str, Bytes]]:
        """The rows, some at a time, with their format."""
        step = max(1, CHUNK // self.columns)
        for part in self.parts:
            for first in range(0, len(part), step):
                yield part.kind, part.between(first, first + step)

    def numbers(self) -> Iterator[Floats]:
        for kind, raw in self.chunks():
            yield dequantize(kind, raw)


def stacked(*matrices: Matrix) -> Matrix:
    """One below the other."""
    return Matrix(tuple(part for matrix in matrices for part in matrix.parts))
