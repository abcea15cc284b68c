"""Walks messages in protobuf's wire format from a stream of bytes, without trusting them.

What is asked for is read, all else is passed over: a graph may carry gigabytes of weights. Every length is an opponent's:
nothing is allocated by its word beyond :data:`MAX_KEPT`, and no more fields are walked than :data:`MAX_FIELDS`.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from typing_extensions import override

from slm_runtime.errors import InvalidModel
from slm_runtime.models.stream import ByteStream

MAX_KEPT: Final = 1 << 20
"""Bytes of a text, or of a packed list, that somebody asks for."""
MAX_FIELDS: Final = 2 << 20
VARINT: Final = 0
LENGTH: Final = 2
_FIXED: Final = {1: 8, 5: 4}
_VARINT_BYTES: Final = 10


class Field(NamedTuple):
    number: int
    kind: int
    """Of the wire: a number (0), eight bytes (1), a length and so many bytes (2), four bytes (5)."""
    value: int
    """The number; else the bytes that follow."""


class Stream(ByteStream):
    """A file from its start, in one direction."""

    def __init__(self, chunks: Iterable[bytes], size: int, name: str) -> None:
        super().__init__(chunks)
        self._fields = MAX_FIELDS
        self._name = name
        self.size = size

    def fields(self, length: int) -> Iterator[Field]:
        """The fields of a message of so many bytes; what whoever asks leaves of one is passed over.

        Raises
        ------
        InvalidModel
            It is damaged or cut off.
        """
        end = self._at + length
        while self._at < end:
            self._fields -= 1
            if self._fields < 0:
                raise self._damaged(f"it has more than {MAX_FIELDS:,} fields")
            tag = self._varint(end)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                yield Field(number, kind, self._varint(end))
                continue
            size = self._varint(end) if kind == LENGTH else _FIXED.get(kind)
            if size is None or not number:
                raise self._damaged(f"it has a field of the unknown type {kind}")
            after = self._at + size
            if after > end:
                raise self._damaged("a field reaches beyond its message")
            yield Field(number, kind, size)
            if self._at > after:
                raise self._damaged("a message reaches beyond its field")
            self._skip(after - self._at)

    def text(self, field: Field) -> str:
        return self.take(field).decode(errors="replace")

    def take(self, field: Field) -> bytes:
        """The bytes of a field that somebody asks for."""
        if field.kind != LENGTH or field.value > MAX_KEPT:
            raise self._damaged(f"a name or a list in it has {field.value:,} bytes")
        return self._take(field.value)

    def numbers(self, field: Field) -> tuple[int, ...]:
        """Of a repeated number: one, or several packed."""
        if field.kind == VARINT:
            return (field.value,)
        packed, found = self.take(field), []
        at = 0
        while at < len(packed):
            value = shift = 0
            while True:
                if at >= len(packed) or shift > 7 * _VARINT_BYTES:
                    raise self._damaged("a number in it is cut off")
                byte = packed[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            found.append(value)
        return tuple(found)

    def _varint(self, end: int) -> int:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            if self._at >= end:
                break
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & ((1 << 64) - 1)
        raise self._damaged("a number in it is cut off")

    @override
    def _cut_off(self) -> InvalidModel:
        return self._damaged("it is cut off")

    def _damaged(self, why: str) -> InvalidModel:
        return InvalidModel(
            f"{self._name} is no ONNX graph: {why}.", "Export the model anew, or publish the whole file."
        )
