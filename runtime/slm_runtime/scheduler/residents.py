"""What the engine holds: running sequences, and ended ones, kept because their beginning may come again.

Only the numbers below `rows` can take part in a step. Where cells are shared, moving a kept sequence to a
higher number costs nothing, so the low ones are freed that way; where each number is a row of its own, a
kept row is used in place. Where sequences can't be cut, a prefix is shared by a snapshot of it, if there is one.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from slm_runtime.engine.protocol import Capabilities, Tokens
from slm_runtime.scheduler.cells import CellLedger
from slm_runtime.scheduler.plan import Copy, Cut, Operation, Resident, Restore, Sequence
from slm_runtime.scheduler.snapshots import Snapshot, Snapshots


def common_prefix(left: Tokens, right: Tokens, limit: int) -> int:
    """Tokens at the beginning that are the same in both, at most `limit`."""
    size = min(len(left), len(right), limit)
    if size == 0 or left[0] != right[0]:
        return 0
    differ = np.frombuffer(left, np.int32, size) != np.frombuffer(right, np.int32, size)
    first = int(differ.argmax())
    return first if differ[first] else size


class Residents:
    """Emits the operations that the engine has to carry out; `take_operations` hands them over."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._shared = capabilities.cells is not None
        self._ledger = CellLedger(shared=self._shared, unit=capabilities.cell_unit)
        self._by_number: dict[int, Resident] = {}
        self._parking = range(capabilities.rows, capabilities.sequences)
        self._operations: list[Operation] = []
        self._snapshots = Snapshots(capabilities, self._operations)
        self._clock = 0

    def __iter__(self) -> Iterator[Resident]:
        return iter(self._by_number.values())

    @property
    def used(self) -> int:
        """Cells in use."""
        return self._ledger.used

    @property
    def cached(self) -> int:
        """Cells that no running sequence holds."""
        running = [r.end for r in self if r.running and r.end is not None]
        if not self._shared:
            return self.used - sum(r.length for r in self if r.running)
        return self.used - self._ledger.held(running)

    def taken_after(self, growth: Iterable[tuple[Resident, int]]) -> int:
        """Cells taken, in whole units, once these have grown by so many."""
        return self._ledger.taken + sum(self._ledger.growth(r.end, cells) for r, cells in growth)

    def take_operations(self) -> list[Operation]:
        taken = self._operations.copy()
        self._operations.clear()
        return taken

    def match(self, sequence: Sequence, limit: int) -> tuple[Resident | Snapshot | None, int]:
        """Who holds the longest prefix of its tokens, as its adapter made it, and how much of it may be used."""
        best: Resident | Snapshot | None = None
        length = 0
        if not self._capabilities.prefix_copy:
            return best, length
        for resident in (each for each in self if each.adapter == sequence.adapter):
            common = common_prefix(resident.tokens, sequence.tokens, min(limit, resident.length))
            common = sequence.whole(common)
            if common > length and (self._capabilities.partial_removal or common == resident.length):
                best, length = resident, common
        for snapshot in (each for each in self._snapshots if each.adapter == sequence.adapter):
            size = len(snapshot.tokens)
            if length < size <= limit and common_prefix(snapshot.tokens, sequence.tokens, size) == size:
                best, length = snapshot, size
        return best, length

    def known(self, sequence: Sequence, limit: int) -> int:
        """How much of its tokens, at most `limit`, others begin with too that are held or were saved, usable or not."""
        held = [each.tokens[: each.length] for each in self if each.adapter == sequence.adapter]
        saved = [each.tokens for each in self._snapshots if each.adapter == sequence.adapter]
        known = max((common_prefix(each, sequence.tokens, limit) for each in held + saved), default=0)
        return sequence.whole(known)

    @property
    def saves(self) -> bool:
        """Whether prefixes are shared by snapshots of them."""
        return self._capabilities.snapshots is not None

    def can_save(self, length: int) -> bool:
        return self._snapshots.size(length) is not None

    def save(self, resident: Resident) -> None:
        """Keep a copy of what it holds now."""
        self._clock += 1
        self._snapshots.save(resident, self._clock)

    def open(self, sequence: Sequence, limit: int) -> Resident:
        """A running resident for its tokens, which holds the longest prefix that there is, at most `limit`."""
        self._clock += 1
        tokens = sequence.tokens
        source, length = self.match(sequence, limit)
        if isinstance(source, Snapshot):
            return self._restored(source, tokens)
        if source is not None and not source.running and self._in_place(source, length):
            self.shorten(source, length)
            source.tokens, source.running, source.used = tokens, True, self._clock
            return source
        number = self._free_row(source)
        resident = Resident(number, tokens, sequence.adapter, used=self._clock)
        self._by_number[number] = resident
        if source is not None and source.end is not None:
            source.used = self._clock
            self._operations.append(Copy(source.number, number, length))
            resident.end = self._ledger.share(source.end, source.length, length)
            resident.length = length
            if not source.running and length == source.length:
                self.drop(source)  # the new one holds all that it held
        return resident

    def grow(self, resident: Resident, cells: int) -> None:
        resident.end = self._ledger.extend(resident.end, cells)
        resident.length += cells

    def keep(self, resident: Resident) -> None:
        """The sequence has ended; what it holds may serve others."""
        self._clock += 1
        resident.running, resident.used = False, self._clock
        resident.tokens = resident.tokens[: resident.length]
        if resident.length == 0 or not self._capabilities.prefix_copy:
            self.drop(resident)

    def drop(self, resident: Resident) -> None:
        del self._by_number[resident.number]
        self._ledger.release(resident.end)
        resident.end = None
        resident.length = 0
        self._operations.append(Cut(resident.number, 0))

    def evict(self) -> bool:
        """Drop what was useless for longest; False where nothing is kept."""
        oldest = self._oldest(range(self._capabilities.sequences))
        if oldest is None:
            return False
        self.drop(oldest)
        return True

    def _restored(self, snapshot: Snapshot, tokens: Tokens) -> Resident:
        """A running resident that holds what was saved, if there are cells for it; else it holds nothing."""
        snapshot.used = self._clock
        number, length = self._free_row(None), len(snapshot.tokens)
        resident = Resident(number, tokens, snapshot.adapter, used=self._clock)
        self._by_number[number] = resident
        cells = self._capabilities.cells
        while cells is not None and self._ledger.used + length > cells:
            if not self.evict():
                return resident
        self._operations.append(Restore(snapshot.number, number))
        self.grow(resident, length)
        return resident

    def shorten(self, resident: Resident, length: int) -> None:
        """Let it hold no more than so much."""
        if length < resident.length and resident.end is not None:
            self._operations.append(Cut(resident.number, length))
            resident.end = self._ledger.cut(resident.end, resident.length, length)
            resident.length = length

    def _in_place(self, source: Resident, length: int) -> bool:
        """Whether to use a kept row up instead of copying it: all of it is wanted, or there is no other."""
        if self._parking:
            return False
        rows = range(self._capabilities.rows)
        others = [n for n in rows if n not in self._by_number or not self._by_number[n].running]
        return length == source.length or others == [source.number]

    def _free_row(self, wanted: Resident | None) -> int:
        """A number below `rows` that nobody holds, `wanted` left as it is if possible."""
        rows = range(self._capabilities.rows)
        for number in rows:
            if number not in self._by_number:
                return number
        oldest = self._oldest(rows, spare=None if self._parking else wanted)
        if oldest is None:
            raise RuntimeError(f"more sequences run than the {len(rows)} rows that the engine has")
        number = oldest.number
        parked = self._free_parking(wanted)
        if parked is None:
            self._snapshots.save(oldest, oldest.used)
            self.drop(oldest)
        else:
            self._operations += [Copy(number, parked, oldest.length), Cut(number, 0)]
            del self._by_number[number]
            oldest.number = parked
            self._by_number[parked] = oldest
        return number

    def _free_parking(self, wanted: Resident | None) -> int | None:
        for number in self._parking:
            if number not in self._by_number:
                return number
        oldest = self._oldest(self._parking, spare=wanted)
        if oldest is None:
            return None
        self.drop(oldest)
        return oldest.number

    def _oldest(self, numbers: range, spare: Resident | None = None) -> Resident | None:
        kept = [r for r in self if r.number in numbers and not r.running and r is not spare]
        return min(kept, key=lambda r: r.used, default=None)
