"""Finds the files in a tar archive, reading its headers alone. Nothing is ever unpacked by the names that it gives.

The standard library's reader wants all of a name's length in memory, however long it says that it is, and seeks backwards;
archives here come from strangers, by ranges or as a stream.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from slm_runtime.errors import SourceInvalid

BLOCK: Final = tarfile.BLOCKSIZE
MAX_ENTRIES: Final = 100_000
MAX_EXTENDED_HEADER: Final = 1 << 20
MAX_DIGITS: Final = 19
_RECORD: Final = re.compile(rb"(\d{1,7}) ([^=\n]+)=")
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA: Final = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)


class Bytes(Protocol):
    """The archive's bytes: asked for from its start to its end, never backwards."""

    def read_at(self, at: int, size: int, /) -> bytes:
        """So many bytes, fewer only at the end."""


class TarFile(NamedTuple):
    path: str
    """As the archive has it, without what would make it absolute."""
    start: int
    """Where its bytes lie in the archive."""
    size: int


def tar_files(archive: Bytes, where: str) -> Iterator[TarFile]:
    """The regular files of an archive, in its order; links, devices and holes are no model.

    Raises
    ------
    SourceInvalid
        It is no tar archive, or a damaged one.
    """
    at = 0
    extended = _Extended()
    for _ in range(MAX_ENTRIES):
        block = archive.read_at(at, BLOCK)
        if not block.strip(b"\0"):
            return
        info = _header(block, where)
        at += BLOCK
        if info.type in {tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
            if info.size > MAX_EXTENDED_HEADER:
                raise SourceInvalid(
                    f"{where} has a header of {info.size:,} bytes: it is no archive of models."
                )
            extended.read(info.type, archive.read_at(at, info.size), where)
            at += _blocks(info.size)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise SourceInvalid(f"{where} has a sparse file.", "Make the archive without `--sparse`.")
        size = info.size if extended.size is None else extended.size
        if info.type in _FILES and not extended.sparse:
            yield TarFile((extended.path or info.name).removeprefix("./").lstrip("/"), at, size)
        at += 0 if info.type in _WITHOUT_DATA else _blocks(size)
        if info.type not in {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK}:
            extended = _Extended()
    raise SourceInvalid(f"{where} has more than {MAX_ENTRIES:,} entries.")


class _Extended:
    """What stands before a header and goes before it."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.size: int | None = None
        self.sparse = False

    def read(self, kind: bytes, data: bytes, where: str) -> None:
        if kind == tarfile.GNUTYPE_LONGNAME:
            self.path = data.partition(b"\0")[0].decode(errors="replace")
            return
        at = 0
        while at < len(data) and data[at]:
            record = _RECORD.match(data, at)
            end = at + int(record[1]) if record else at
            if record is None or end <= record.end():
                raise SourceInvalid(f"{where} is a damaged tar archive: a header can't be read.")
            self._set(record[2], data[record.end() : end - 1])
            at = end

    def _set(self, key: bytes, value: bytes) -> None:
        if key == b"path":
            self.path = value.decode(errors="replace")
        elif key == b"size" and value.isdigit() and len(value) < MAX_DIGITS:
            self.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            self.sparse = True


def _header(block: bytes, where: str) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError) as error:
        raise SourceInvalid(f"{where} is no tar archive, or a damaged one: {error}.") from None
    if info.size < 0:
        raise SourceInvalid(f"{where} is a damaged tar archive: a file has {info.size} bytes.")
    return info


def _blocks(size: int) -> int:
    """Bytes that so many take up in an archive."""
    return -(-size // BLOCK) * BLOCK
