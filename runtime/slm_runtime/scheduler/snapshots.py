"""The account of snapshots: what was saved of sequences that can't be cut, the least used of it given up for new ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from slm_runtime.engine.protocol import Capabilities, Tokens
from slm_runtime.scheduler.plan import Forget, Operation, Resident, Save

_MOST: Final = 256
"""Each is compared with each new prompt."""


@dataclass(slots=True, eq=False)
class Snapshot:
    """What a sequence held once."""

    number: int
    tokens: Tokens
    """All that is held."""
    adapter: int
    bytes: int
    used: int
    """As of Resident."""


class Snapshots:
    """Adds the operations that the engine has to carry out to `operations`."""

    def __init__(self, capabilities: Capabilities, operations: list[Operation]) -> None:
        self._sizes, self._room = capabilities.snapshots, capabilities.snapshot_room
        self._operations = operations
        self._kept: dict[int, Snapshot] = {}
        self._bytes = 0
        self._next = 0

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self._kept.values())

    def size(self, length: int) -> int | None:
        """Bytes of a snapshot of so many tokens; None: there is no room for that, or nothing can be saved."""
        size = None if self._sizes is None else self._sizes.of(length)
        return None if size is None or size > self._room else size

    def save(self, resident: Resident, used: int) -> None:
        """Keep what it holds, unless that is kept already, or there is no room but for what was used later."""
        size = self.size(resident.length)
        if size is None:
            return
        tokens = resident.tokens[: resident.length]
        same = next((s for s in self if s.adapter == resident.adapter and s.tokens == tokens), None)
        if same is not None:
            same.used = max(same.used, used)
            return
        while self._bytes + size > self._room or len(self._kept) >= _MOST:
            oldest = min(self, key=lambda each: each.used)
            if oldest.used > used:
                return
            self._forget(oldest)
        snapshot = Snapshot(self._next, tokens, resident.adapter, size, used)
        self._next += 1
        self._bytes += size
        self._kept[snapshot.number] = snapshot
        self._operations.append(Save(resident.number, snapshot.number))

    def _forget(self, snapshot: Snapshot) -> None:
        del self._kept[snapshot.number]
        self._bytes -= snapshot.bytes
        self._operations.append(Forget(snapshot.number))
