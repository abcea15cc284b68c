"""The account of key/value cells, exact under sharing.

A sequence's cells are a path of runs from its end to the root. Where two sequences hold the same cells
their paths meet; a run is freed with its last holder. Nothing here is proportional to the number of cells.

An engine may place cells in units: attention is fastest where those of a sequence lie side by side, so what a
run begins no other run ends. What a run takes is therefore more than what it uses.
"""

from typing import Self


class Run:
    """Cells that are held by the same sequences."""

    __slots__ = ("holders", "length", "parent")

    def __init__(self, parent: Self | None) -> None:
        self.parent = parent
        self.length = 0
        self.holders = 1
        """Sequences that end here, and runs that follow."""


class CellLedger:
    """Counts cells in use. `shared` False: a copied prefix costs as much again (a row a sequence)."""

    def __init__(self, *, shared: bool, unit: int = 1) -> None:
        self.used = 0
        self.taken = 0
        """Whole units; at least as many as the engine has begun."""
        self._shared = shared
        self._unit = unit

    def extend(self, end: Run | None, cells: int) -> Run:
        """Append cells to the sequence that ends at `end`; returns its new end."""
        run = end if end is not None and end.holders == 1 else Run(end)
        self._resize(run, run.length + cells)
        return run

    def growth(self, end: Run | None, cells: int) -> int:
        """By how much `extend` would raise what is taken."""
        begun = end.length if end is not None and end.holders == 1 else 0
        return self._whole(begun + cells) - self._whole(begun)

    def share(self, end: Run, length: int, keep: int) -> Run:
        """Hold the first `keep` (at least 1) cells of the sequence of `length` cells that ends at `end`."""
        if not self._shared:
            return self.extend(None, keep)
        run, run_end = end, length
        while run.parent is not None and run_end - run.length >= keep:
            run_end -= run.length
            run = run.parent
        if run_end > keep:
            head = Run(run.parent)
            self._resize(head, run.length - (run_end - keep))
            self._resize(run, run_end - keep)
            run.parent = head
            run = head
        run.holders += 1
        return run

    def cut(self, end: Run, length: int, keep: int) -> Run | None:
        """Give up all but the first `keep` cells."""
        if keep == 0:
            self.release(end)
            return None
        if not self._shared:
            self._resize(end, keep)
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
            self._resize(run, 0)
            run = run.parent

    def _resize(self, run: Run, length: int) -> None:
        self.used += length - run.length
        self.taken += self._whole(length) - self._whole(run.length)
        run.length = length

    def _whole(self, cells: int) -> int:
        return -(-cells // self._unit) * self._unit

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
