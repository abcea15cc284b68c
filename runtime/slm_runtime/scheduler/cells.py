"""The account of key/value cells, exact under sharing.

A sequence's cells are a path of runs from its end to the root. Where two sequences hold the same cells
their paths meet; a run is freed with its last holder. Nothing here is proportional to the number of cells.
"""

from typing import Self


class Run:
    """Cells that are held by the same sequences."""

    __slots__ = ("holders", "length", "parent")

    def __init__(self, parent: Self | None, length: int) -> None:
        self.parent = parent
        self.length = length
        self.holders = 1
        """Sequences that end here, and runs that follow."""


class CellLedger:
    """Counts cells in use. `shared` False: a copied prefix costs as much again (a row a sequence)."""

    def __init__(self, *, shared: bool) -> None:
        self.used = 0
        self._shared = shared

    def extend(self, end: Run | None, cells: int) -> Run:
        """Append cells to the sequence that ends at `end`; returns its new end."""
        self.used += cells
        if end is not None and end.holders == 1:
            end.length += cells
            return end
        return Run(end, cells)

    def share(self, end: Run, length: int, keep: int) -> Run:
        """Hold the first `keep` (at least 1) cells of the sequence of `length` cells that ends at `end`."""
        if not self._shared:
            return self.extend(None, keep)
        run, run_end = end, length
        while run.parent is not None and run_end - run.length >= keep:
            run_end -= run.length
            run = run.parent
        if run_end > keep:
            head = Run(run.parent, run.length - (run_end - keep))
            run.parent, run.length = head, run_end - keep
            run = head
        run.holders += 1
        return run

    def cut(self, end: Run, length: int, keep: int) -> Run | None:
        """Give up all but the first `keep` cells."""
        if keep == 0:
            self.release(end)
            return None
        if not self._shared:
            self.used -= length - keep
            end.length = keep
            return end
        shorter = self.share(end, length, keep)
        self.release(end)
        return shorter

    def release(self, end: Run | None) -> None:
        run = end
        while run is not None:
            run.holders -= 1
            if run.holders:
                return
            self.used -= run.length
            run = run.parent

    @staticmethod
    def held(ends: list[Run]) -> int:
        """Cells that these sequences hold together, each counted once."""
        seen: set[int] = set()
        total = 0
        for end in ends:
            run: Run | None = end
            while run is not None and id(run) not in seen:
                seen.add(id(run))
                total += run.length
                run = run.parent
        return total
