"""The two protocols of this package: bytes at a source, and the model file that is made of them."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from slm_runtime.errors import SourceInvalid

CHUNK: Final = 1 << 18


class Blob(Protocol):
    """Bytes at a source, of one version: reading another version raises SourceChanged."""

    @property
    def where(self) -> str:
        """For messages: no credentials in it."""

    @property
    def size(self) -> int | None:
        """Bytes; None where the source doesn't say."""

    @property
    def version(self) -> str | None:
        """Equal versions are equal bytes (an ETag, a checksum); None where the source has no such thing."""

    @property
    def ranged(self) -> bool:
        """Whether reading may start and stop anywhere. Otherwise it is all or nothing."""

    def read(self, start: int = 0, stop: int | None = None) -> AbstractContextManager[Iterator[bytes]]:
        """Bytes from `start` up to `stop` (None: the end), in chunks that fit in memory."""


class Artifact(Protocol):
    """One model file at its source."""

    @property
    def file_name(self) -> str:
        """Its name, without any folder."""

    @property
    def payload(self) -> Blob:
        """What is transferred."""

    @property
    def space(self) -> int | None:
        """Bytes that the volume needs until the model file is complete; None: not known beforehand."""

    def head(self, limit: int | None = None) -> AbstractContextManager[tuple[Iterator[bytes], int]]:
        """Read the model file from its start; and its size in bytes.

        At most `limit` bytes of the payload are asked for; None: as many as are read.
        """

    def unpack(self, part: Path, target: Path, /) -> Path:
        """Make the model file of the transferred payload: `part` itself, or `target`, if it was packed."""

    def confirm(self, part: Path) -> None:
        """Compare the payload with the checksum that the source gives for it, where it gives one."""


@dataclass(frozen=True)
class FileBlob:
    """A local file."""

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def version(self) -> str:
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    @property
    def ranged(self) -> bool:
        return True

    @contextmanager
    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Iterator[bytes]]:
        with self.path.open("rb") as file:
            file.seek(start)
            yield _chunks(file.read, None if stop is None else stop - start)


@dataclass(frozen=True)
class Slice:
    """A part of a blob, as a blob."""

    blob: Blob
    start: int
    size: int

    @property
    def where(self) -> str:
        return self.blob.where

    @property
    def version(self) -> str | None:
        return self.blob.version

    @property
    def ranged(self) -> bool:
        return True

    @contextmanager
    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Iterator[bytes]]:
        end = self.size if stop is None else stop
        with self.blob.read(self.start + start, self.start + end) as chunks:
            yield chunks


@dataclass(frozen=True)
class PlainFile:
    """An artifact that is its payload."""

    file_name: str
    payload: Blob

    @property
    def space(self) -> int | None:
        return self.payload.size

    @contextmanager
    def head(self, limit: int | None = None) -> Iterator[tuple[Iterator[bytes], int]]:
        size = self.payload.size
        if size is None:
            raise SourceInvalid(
                f"{self.payload.where} doesn't say how long it is.",
                "Use a server that sends a Content-Length.",
            )
        stop = up_to(limit, size) if self.payload.ranged else None
        with self.payload.read(0, stop) as chunks:
            yield chunks, size

    def unpack(self, part: Path, _target: Path, /) -> Path:
        return part

    def confirm(self, part: Path) -> None:
        """A plain file has nothing but the checksum in the spec."""


def up_to(limit: int | None, size: int) -> int | None:
    """Where to stop; None where the limit doesn't matter."""
    return limit if limit is not None and limit < size else None


def hexdigest(algorithm: str, parts: Iterable[Iterator[bytes]]) -> str:
    """The checksum of what lies one behind the other."""
    hasher = hashlib.new(algorithm)
    for chunks in parts:
        for chunk in chunks:
            hasher.update(chunk)
    return hasher.hexdigest()


def _chunks(read: "_Read", length: int | None) -> Iterator[bytes]:
    while length is None or length > 0:
        chunk = read(CHUNK if length is None else min(CHUNK, length))
        if not chunk:
            return
        if length is not None:
            length -= len(chunk)
        yield chunk


class _Read(Protocol):
    def __call__(self, size: int, /) -> bytes: ...
