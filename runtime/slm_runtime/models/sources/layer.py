"""A file in a layer of an image or an artifact, which is a tar archive.

Where it lies there uncompressed and the registry knows ranges, only the file's bytes are transferred; else the whole
layer is, and the file is taken out of it on the volume.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from slm_runtime.errors import ChecksumMismatch, SourceInvalid, SourceNotFound, SourceUnreachable
from slm_runtime.models.sources.artifact import Blob, FileBlob, Slice, hexdigest, up_to
from slm_runtime.models.sources.tar import TarFile, tar_files
from slm_runtime.models.sources.unpacking import Packing, unpacked

WINDOW: Final = 64 << 10
MAX_WINDOW: Final = 8 << 20
"""Bytes that are asked for at once: more and more as long as headers lie close together, since then the files are small."""
LOOK: Final = 8 << 20
"""Bytes of a layer that comes whole that are looked through for its files' names."""


@dataclass(frozen=True)
class Layer:
    payload: Blob
    sha256: str
    """Of the layer."""
    packing: Packing | None
    """None: it isn't compressed."""

    @property
    def in_place(self) -> bool:
        return self.payload.ranged and self.packing is None and self.payload.size is not None

    def plain(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The archive, of the layer's bytes."""
        return chunks if self.packing is None else unpacked(chunks, self.packing, self.payload.where)


class Contents(NamedTuple):
    files: tuple[TarFile, ...]
    complete: bool
    """False: there may be more."""


@dataclass(frozen=True)
class MemberInPlace:
    """A file that is read by ranges where it lies in a layer."""

    file_name: str
    payload: Slice
    layer: Layer

    @property
    def space(self) -> int:
        return self.payload.size

    @contextmanager
    def head(self, limit: int | None = None) -> Iterator[tuple[Iterator[bytes], int]]:
        with self.payload.read(0, up_to(limit, self.payload.size)) as chunks:
            yield chunks, self.payload.size

    def unpack(self, part: Path, _target: Path, /) -> Path:
        return part

    def confirm(self, part: Path) -> None:
        """Compare the whole layer with its digest: what lies around the file is read for that."""
        end = self.payload.start + self.payload.size
        with (
            self.layer.payload.read(0, self.payload.start) as before,
            FileBlob(part).read() as middle,
            self.layer.payload.read(end) as after,
        ):
            _compare(self.layer, before, middle, after)


@dataclass(frozen=True)
class PackedMember:
    """A file in a layer that is transferred whole."""

    path: str
    """In the archive."""
    payload: Blob
    layer: Layer
    size: int | None
    """Bytes of the file; None: it wasn't seen yet."""

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def space(self) -> int | None:
        return None if self.payload.size is None or self.size is None else self.payload.size + self.size

    @contextmanager
    def head(self, limit: int | None = None) -> Iterator[tuple[Iterator[bytes], int]]:  # noqa: ARG002
        """Read on until the file comes; where that is, no limit can tell."""
        with self.payload.read() as chunks:
            yield self._find(chunks)

    def unpack(self, part: Path, target: Path, /) -> Path:
        with FileBlob(part).read() as packed, target.open("wb") as file:
            chunks, size = self._find(packed)
            for chunk in chunks:
                file.write(chunk)
            if file.tell() != size:
                raise SourceInvalid(f"{self.path} in {self.payload.where} is cut off.")
        return target

    def confirm(self, part: Path) -> None:
        with FileBlob(part).read() as chunks:
            _compare(self.layer, chunks)

    def _find(self, packed: Iterator[bytes]) -> tuple[Iterator[bytes], int]:
        archive = _Forward(self.layer.plain(packed))
        for file in tar_files(archive, self.payload.where):
            if file.path == self.path:
                return archive.chunks(file.start, file.size), file.size
        raise SourceNotFound(f"{self.payload.where} has no file {self.path!r}.")


def look_into(layer: Layer) -> Contents:
    """Which files a layer has: all of them, or those in its beginning where more would mean to transfer it.

    Raises
    ------
    SourceError
    """
    where = layer.payload.where
    size = layer.payload.size
    if layer.in_place and size is not None:
        return Contents(tuple(tar_files(_Windows(layer.payload, size), where)), complete=True)
    files: list[TarFile] = []
    stop = up_to(LOOK, size) if layer.payload.ranged and size is not None else None
    with layer.payload.read(0, stop) as chunks:
        try:
            files.extend(tar_files(_Forward(layer.plain(_beginning(chunks))), where))
        except _Enough:
            return Contents(tuple(files), complete=False)
    return Contents(tuple(files), complete=True)


def member(layer: Layer, file: TarFile) -> MemberInPlace | PackedMember:
    if not layer.in_place:
        return PackedMember(file.path, layer.payload, layer, file.size)
    if file.start + file.size > (layer.payload.size or 0):
        raise SourceInvalid(f"{file.path} in {layer.payload.where} reaches beyond its end.")
    return MemberInPlace(file.path.rpartition("/")[2], Slice(layer.payload, file.start, file.size), layer)


class _Enough(Exception):
    """More isn't read for a look."""


def _beginning(chunks: Iterator[bytes]) -> Iterator[bytes]:
    length = 0
    for chunk in chunks:
        yield chunk
        length += len(chunk)
        if length >= LOOK:
            raise _Enough


class _Windows:
    """An archive by ranges."""

    def __init__(self, blob: Blob, size: int) -> None:
        self._blob = blob
        self._size = size
        self._start = 0
        self._window = b""
        self._next_window = WINDOW

    def read_at(self, at: int, size: int, /) -> bytes:
        end = min(at + size, self._size)
        if at >= end:
            return b""
        reached = self._start + len(self._window)
        if end > reached:
            self._next_window = min(2 * self._next_window, MAX_WINDOW) if at <= reached + WINDOW else WINDOW
            self._window = self._fetch(at, min(at + max(size, self._next_window), self._size))
            self._start = at
        return self._window[at - self._start : end - self._start]

    def _fetch(self, start: int, stop: int) -> bytes:
        window = bytearray()
        with self._blob.read(start, stop) as chunks:
            for chunk in chunks:
                window += chunk
                if len(window) > stop - start:
                    raise SourceInvalid(f"{self._blob.where} sends more than it was asked for.")
        if len(window) < stop - start:
            raise SourceUnreachable(f"{self._blob.where} was cut off at byte {start + len(window):,}.")
        return bytes(window)


class _Forward:
    """An archive as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._at = 0

    def read_at(self, at: int, size: int, /) -> bytes:
        return b"".join(self.chunks(at, size))

    def chunks(self, at: int, size: int) -> Iterator[bytes]:
        for _ in self._next(at - self._at):
            pass
        for piece in self._next(size):
            yield bytes(piece)

    def _next(self, length: int) -> Iterator[memoryview]:
        while length > 0:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    return
            piece, self._rest = self._rest[:length], self._rest[length:]
            length -= len(piece)
            self._at += len(piece)
            yield piece


def _compare(layer: Layer, *parts: Iterator[bytes]) -> None:
    found = hexdigest("sha256", parts)
    if found != layer.sha256:
        raise ChecksumMismatch(
            f"sha256 of {layer.payload.where} is {found}, its manifest says {layer.sha256}.",
            "Publish the layer again, or ask who runs the registry; nothing was kept.",
        )
