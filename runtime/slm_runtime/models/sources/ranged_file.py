"""A blob as a file that can be sought in: just enough for `zipfile` to find its way through a remote archive."""

import io
from typing import Final

from slm_runtime.errors import SourceInvalid
from slm_runtime.models.sources.artifact import Blob

TAIL: Final = 128 << 10
"""Bytes at the end that are read at once: the archive's directory is in there, as a rule."""
MAX_DIRECTORY: Final = 16 << 20
"""The most that is read at once."""


class RangedFile:
    """Reading past :data:`MAX_DIRECTORY` at once, or seeking before the start, raises ValueError."""

    def __init__(self, blob: Blob) -> None:
        if blob.size is None:
            raise SourceInvalid(f"The size of {blob.where} isn't known.")
        self.size = blob.size
        self._blob = blob
        self._at = 0
        self._tail_start = max(0, self.size - TAIL)
        self._tail = b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("an offset before its start")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        stop = self.size if size < 0 else min(self._at + size, self.size)
        data = self._range(self._at, stop)
        self._at += len(data)
        return data

    def _range(self, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""
        if stop - start > MAX_DIRECTORY:
            raise ValueError(f"its directory is longer than {MAX_DIRECTORY >> 20} MiB")
        if start < self._tail_start:
            return self._fetch(start, stop)
        if not self._tail:
            self._tail = self._fetch(self._tail_start, self.size)
        return self._tail[start - self._tail_start : stop - self._tail_start]

    def _fetch(self, start: int, stop: int) -> bytes:
        with self._blob.read(start, stop) as chunks:
            return b"".join(chunks)
