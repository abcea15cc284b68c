"""The checksum of a file that is being written: computed behind the writers, out of the page cache."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CHUNK: Final = 1 << 18
AT_ONCE: Final = 64 << 20
"""Bytes after which whoever lets it follow gets to do something else."""


class GrowingDigest:
    """sha256. What was hashed mustn't change any more."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._hash = hashlib.sha256()
        self._chunk = memoryview(bytearray(CHUNK))
        self._length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def follow(self, end: int) -> bool:
        """Hash what is there up to `end`; answer whether some of it is left for another call."""
        stop = min(end, self._length + AT_ONCE)
        while self._length < stop:
            read = self._file.readinto(self._chunk[: stop - self._length])
            if not read:
                return False
            self._hash.update(self._chunk[:read])
            self._length += read
        return self._length < end

    def finish(self) -> str:
        """Hash what is left of the file, and return 64 hex digits."""
        while read := self._file.readinto(self._chunk):
            self._hash.update(self._chunk[:read])
        return self._hash.hexdigest()
