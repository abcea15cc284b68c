"""Finds a member in a zip archive that comes as a stream, from one local header to the next.

Only for a look at a model's header on a server without ranges: the archive's directory, which has the last word,
comes at the end. Archives whose sizes stand behind the data can't be read this way.
"""

import struct
import zipfile
from collections.abc import Iterator
from typing import Final, NamedTuple

from slm_runtime.errors import SourceInvalid, SourceNotFound

_HEADER: Final = struct.Struct("<4s5H3I2H")
_SIZES_BEHIND: Final = 8
_ENCRYPTED: Final = 1
_ZIP64: Final = 1
_IN_ZIP64: Final = 0xFFFFFFFF


class StreamMember(NamedTuple):
    chunks: Iterator[bytes]
    """As they lie in the archive."""
    size: int
    """Bytes of the file when unpacked."""
    deflated: bool


def stream_member(chunks: Iterator[bytes], path: str, where: str) -> StreamMember:
    """Skip to a member.

    Raises
    ------
    SourceNotFound
        It isn't among the members that can be found this way.
    SourceInvalid
        The stream is no zip archive, or not one that can be streamed.
    """
    stream = _Stream(chunks)
    while len(head := stream.take(_HEADER.size)) == _HEADER.size and head[:4] == b"PK\3\4":
        _, _, flags, method, _, _, _, packed, size, name_length, extra_length = _HEADER.unpack(head)
        name, extra = stream.take(name_length), stream.take(extra_length)
        if flags & (_SIZES_BEHIND | _ENCRYPTED):
            raise SourceInvalid(
                f"{where} can't be read while it comes: its sizes stand behind its data, or it is encrypted.",
                "Use an index whose server answers to ranges.",
            )
        size, packed = _large_sizes(extra, size, packed)
        if name.decode(errors="replace") == path:
            if method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise SourceInvalid(f"{path} in {where} is compressed in a way that isn't read.")
            return StreamMember(stream.limited(packed), size, method == zipfile.ZIP_DEFLATED)
        for _ in stream.limited(packed):
            pass
    if stream.position <= _HEADER.size:
        raise SourceInvalid(f"{where} is no zip archive.")
    raise SourceNotFound(f"{where} has no file {path!r}.")


def _large_sizes(extra: bytes, size: int, packed: int) -> tuple[int, int]:
    """Sizes that don't fit into the header stand in its extra field, those that do not there."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _ZIP64:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}Q", extra, 4))
            size = next(values, size) if size == _IN_ZIP64 else size
            packed = next(values, packed) if packed == _IN_ZIP64 else packed
        extra = extra[4 + length :]
    return size, packed


class _Stream:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.position = 0

    def take(self, length: int) -> bytes:
        """So many bytes, or fewer where the stream ends."""
        return b"".join(self.limited(length))

    def limited(self, length: int) -> Iterator[bytes]:
        """The next so many bytes."""
        while length > 0:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            piece, self._rest = chunk[:length], chunk[length:]
            length -= len(piece)
            self.position += len(piece)
            yield piece
