"""The transferred part of a payload on the volume, in blocks, and the record that lets another process go on."""

import os
import threading
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from slm_contract.base import ContractModel
from slm_runtime.models.folder import Staging, write_atomically
from slm_runtime.models.sources.artifact import Blob

BLOCK: Final = 16 << 20
"""Bytes that one request asks for."""


class PartState(ContractModel):
    """What stands on disk beside the part."""

    identity: str
    block: int
    done: tuple[int, ...]
    """Bytes from the start of each block."""


class Part:
    """Writers own a block each; `save` may run beside them."""

    def __init__(self, path: Path, state_path: Path, size: int, identity: str, block: int) -> None:
        """`identity`: names source and version."""
        self._path = path
        self._state_path = state_path
        self._identity = identity
        self._lock = threading.Lock()
        self.size = size
        self.block = block
        self.done = _resumable(path, state_path, size, identity, block) or [0] * -(-size // block)
        self.resumed = any(self.done)
        self._first_missing = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if self.resumed else os.O_TRUNC)
        self._file = os.open(path, flags, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @classmethod
    def before(cls, staging: Staging, size: int, identity: str, block: int) -> int:
        """Bytes that an earlier process left and that can be gone on with."""
        state = _resumable(staging.part, staging.part_state, size, identity, block)
        return 0 if state is None else sum(state)

    @property
    def prefix(self) -> int:
        """Bytes that have come without a gap. For one thread."""
        while self._first_missing < len(self.done):
            start, stop = self.bounds(self._first_missing)
            if start < stop:
                return start
            self._first_missing += 1
        return self.size

    def bounds(self, index: int) -> tuple[int, int]:
        """Where a block's missing bytes start and end."""
        start = index * self.block
        return start + self.done[index], min(start + self.block, self.size)

    def missing(self) -> list[int]:
        """Blocks that aren't complete."""
        bounds = (self.bounds(index) for index in range(len(self.done)))
        return [index for index, (start, stop) in enumerate(bounds) if start < stop]

    def write(self, index: int, data: bytes) -> None:
        """Append to a block."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.bounds(index)[0])
            self.done[index] += written
            view = view[written:]

    def save(self) -> None:
        """Bring the bytes to the disk, and only then the record that they are there."""
        with self._lock:
            state = PartState(identity=self._identity, block=self.block, done=tuple(self.done))
            os.fdatasync(self._file)
            write_atomically(self._state_path, state.to_json())


def _resumable(path: Path, state_path: Path, size: int, identity: str, block: int) -> list[int] | None:
    """Bytes from the start of each block, where they are of the same payload."""
    try:
        state = PartState.model_validate_json(state_path.read_bytes())
        on_disk = path.stat().st_size
    except (FileNotFoundError, ValidationError):
        return None
    same = (state.identity, state.block, len(state.done)) == (identity, block, -(-size // block))
    if not same or any(not 0 <= done <= block for done in state.done):
        return None
    ends = (index * block + done for index, done in enumerate(state.done) if done)
    return None if max(ends, default=0) > on_disk else list(state.done)


def part_identity(blob: Blob, *, pinned: bool) -> str | None:
    """Return what must be equal for a part to be continued.

    A source that gives no version can still be continued where a checksum decides in the end (`pinned`).
    """
    if blob.version is None and not pinned:
        return None
    return f"{blob.where} {blob.version} {blob.size}"
