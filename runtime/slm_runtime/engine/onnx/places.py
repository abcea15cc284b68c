"""Which row of the key/value store each sequence has, and which rows a step computes.

A step computes rows that lie side by side. One between them that takes no part is computed along: what that writes lies
behind what the row holds, where the next token that is meant for it will be written. That costs less than a second step,
for a while; then rows change places.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

_ALONG: Final = 2
"""Idle rows side by side that cost less than another step does."""
_PATIENCE: Final = 32
"""Rows computed for nothing that cost about what it takes to change places."""


class Run(NamedTuple):
    """Rows side by side, from the first to the one before the last."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class Places:
    """Sequences and rows are equally many; each of a number has one of the others' at any time."""

    def __init__(self, rows: int, capacity: int) -> None:
        """`capacity`: tokens that a row holds."""
        self.lengths = [0] * rows
        """Tokens that each row holds."""
        self._capacity = capacity
        self._row = list(range(rows))
        """Of each sequence."""
        self._wasted = 0

    def row(self, sequence: int) -> int:
        return self._row[sequence]

    def runs(self, rows: Sequence[int]) -> list[Run]:
        """What is to be computed so that all these are, in rising order."""
        ordered = sorted(rows)
        runs = [Run(ordered[0], ordered[0] + 1)]
        for row in ordered[1:]:
            between = range(runs[-1].end, row)
            if len(between) <= _ALONG and all(self.lengths[idle] < self._capacity for idle in between):
                runs[-1] = Run(runs[-1].start, row + 1)
            else:
                runs.append(Run(row, row + 1))
        self._wasted += sum(run.size for run in runs) - len(ordered) + _ALONG * (len(runs) - 1)
        return runs

    def moves(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Pairs of rows that should change places so that these lie side by side; none as long as that isn't worth it."""
        if self._wasted < _PATIENCE:
            return []
        self._wasted = 0
        wanted, count = set(rows), len(rows)
        windows = (Run(start, start + count) for start in range(len(self.lengths) - count + 1))
        swaps = [_swaps(window, wanted) for window in windows]
        return min(swaps, key=lambda pairs: sum(self.lengths[a] + self.lengths[b] for a, b in pairs))

    def swapped(self, one: int, other: int) -> None:
        """Two rows have changed places."""
        a, b = self._row.index(one), self._row.index(other)
        self._row[a], self._row[b] = other, one
        self.lengths[one], self.lengths[other] = self.lengths[other], self.lengths[one]


def _swaps(window: Run, wanted: set[int]) -> list[tuple[int, int]]:
    inside = range(window.start, window.end)
    return list(zip(sorted(wanted - set(inside)), (row for row in inside if row not in wanted), strict=True))
