"""Reads the header of a GGUF file from a stream of bytes, without trusting it.

The header comes from the network before anything was verified, so every count and length in it is an opponent's:
nothing is allocated or iterated by its word alone. Only values that somebody may ask for are kept (scalars and
short strings, short arrays of integers); the vocabulary is walked over, not stored, and so is a long text (some files
carry a whole `tokenizer.json`). Memory stays below a few MiB, and time is bounded by :data:`MAX_HEADER_BYTES` and
:data:`MAX_ITEMS`. Who wants the vocabulary itself asks for its keys by name.
"""

import math
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from slm_runtime.errors import InvalidModel, UnsupportedFormat
from slm_runtime.models.stream import ByteStream

MAX_HEADER_BYTES: Final = 256 << 20
"""Far above any vocabulary: 262,144 tokens with their merges take about 15 MiB."""
MAX_ITEMS: Final = 4 << 20
"""Strings and nested arrays that are walked one by one."""
MAX_KEYS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_KEPT_STRING: Final = 1 << 20
MAX_KEPT_ARRAY: Final = 4096
MAX_NAME: Final = 65_535
MAX_SHOWN: Final = 200
"""Characters of a name in a message."""
MAX_DIMENSIONS: Final = 4
MAX_NESTING: Final = 2

_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9
_U32: Final = _SCALARS[4]
_U64: Final = _SCALARS[10]

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Skipped:
    """A text that is longer than anybody needs."""

    length: int
    """Bytes."""


@dataclass(frozen=True)
class Array:
    """An array of the header. `values` is None where it was too long to keep, or holds no integers."""

    length: int
    values: tuple[int, ...] | None = None
    whole: tuple[Scalar, ...] = ()
    """Every item, where the array was asked for by name."""


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    type: int
    """As ggml numbers its types."""
    offset: int
    """Bytes from the start of the tensor data."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    version: int
    metadata: dict[str, Scalar | Array | Skipped]
    tensors: tuple[Tensor, ...]
    data_offset: int
    """Where the tensor data starts: the header's size, rounded up to the file's alignment; bytes."""


def read_header(chunks: Iterable[bytes], size: int | None = None, whole: Collection[str] = ()) -> Header:
    """Read the header from the first chunks of a file of `size` bytes (None: not known yet).

    No more chunks are taken than the header needs. `whole` are keys of arrays that are kept with every item.

    Raises
    ------
    InvalidModel
        It is no GGUF file, it is damaged, or it ends too early.
    UnsupportedFormat
        A GGUF file of another version or byte order.
    """
    return _Reader(chunks, size, whole).header()


class _Reader(ByteStream):
    def __init__(self, chunks: Iterable[bytes], size: int | None, whole: Collection[str]) -> None:
        super().__init__(chunks)
        self._whole = whole
        self._end = min(size if size is not None else MAX_HEADER_BYTES, MAX_HEADER_BYTES)
        self._items = MAX_ITEMS

    def header(self) -> Header:
        magic = self._take(4)
        if magic != b"GGUF":
            raise InvalidModel(f"The file starts with {magic!r}, not with b'GGUF': it is no GGUF file.")
        version = self._u32()
        if version not in {2, 3}:
            if int.from_bytes(version.to_bytes(4, "little"), "big") in {2, 3}:
                raise UnsupportedFormat("The GGUF file is big-endian.")
            raise UnsupportedFormat(f"The GGUF file has version {version}; versions 2 and 3 are read.")
        tensor_count = self._count("tensors", MAX_TENSORS, least=24)
        key_count = self._count("metadata keys", MAX_KEYS, least=13)
        metadata: dict[str, Scalar | Array | Skipped] = {}
        for _ in range(key_count):
            key = self._name()
            if not key:
                raise InvalidModel(
                    f"The header has a metadata key without a name, after {len(metadata)} others."
                )
            if key in metadata:
                raise InvalidModel(f"The header has the metadata key {key[:MAX_SHOWN]!r} twice.")
            metadata[key] = self._value(self._u32(), key)
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise InvalidModel(f"general.alignment is {alignment!r}, no power of two.")
        data_offset = -(-self._at // alignment) * alignment
        return Header(version, metadata, tensors, data_offset)

    def _value(self, kind: int, key: str) -> Scalar | Array | Skipped:
        if scalar := _SCALARS.get(kind):
            value: Scalar = scalar.unpack(self._take(scalar.size))[0]
            return value
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key, 1)
        raise InvalidModel(f"Metadata key {key[:MAX_SHOWN]!r} has the unknown type {kind}.")

    def _string(self, key: str) -> str | Skipped:
        length = self._length(key, 1)
        if length > MAX_KEPT_STRING:
            self._skip(length)
            return Skipped(length)
        return self._take(length).decode(errors="replace")

    def _array(self, key: str, nesting: int) -> Array:
        kind = self._u32()
        if scalar := _SCALARS.get(kind):
            length = self._length(key, scalar.size)
            if key in self._whole:
                data = self._take(length * scalar.size)
                return Array(length, whole=tuple(item for (item,) in scalar.iter_unpack(data)))
            if length > MAX_KEPT_ARRAY or scalar.format in {"<f", "<d"}:
                self._skip(length * scalar.size)
                return Array(length)
            data = self._take(length * scalar.size)
            return Array(length, tuple(int(item) for (item,) in scalar.iter_unpack(data)))
        if kind == _STRING:
            length = self._walk(key, 8)
            if key in self._whole:
                texts = (self._take(self._length(key, 1)) for _ in range(length))
                return Array(length, whole=tuple(text.decode(errors="replace") for text in texts))
            for _ in range(length):
                self._skip(self._length(key, 1))
            return Array(length)
        if kind == _ARRAY and nesting < MAX_NESTING:
            length = self._walk(key, 12)
            for _ in range(length):
                self._array(key, nesting + 1)
            return Array(length)
        raise InvalidModel(
            f"Metadata key {key[:MAX_SHOWN]!r} is an array of the unknown or too deep type {kind}."
        )

    def _tensor(self) -> Tensor:
        name = self._name()
        dimensions = self._u32()
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise InvalidModel(f"Tensor {name[:MAX_SHOWN]!r} has {dimensions} dimensions.")
        shape = struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions))
        return Tensor(name, shape, self._u32(), self._u64())

    def _name(self) -> str:
        length = self._length("names", 1)
        if length > MAX_NAME:
            raise InvalidModel(f"A name in the header has {length:,} bytes.")
        return self._take(length).decode(errors="replace")

    def _count(self, what: str, limit: int, least: int) -> int:
        count = self._u64()
        if count > limit or count * least > self._end - self._at:
            raise InvalidModel(f"The header announces {count:,} {what}: it is damaged or cut off.")
        return count

    def _walk(self, key: str, least: int) -> int:
        """The length of an array whose items are walked one by one: takes from the budget for that."""
        length = self._length(key, least)
        self._items -= length
        if self._items < 0:
            raise InvalidModel(
                f"Metadata key {key[:MAX_SHOWN]!r} brings the header above {MAX_ITEMS:,} items."
            )
        return length

    def _length(self, what: str, least: int) -> int:
        """A count of items of at least `least` bytes each, all of which must still come."""
        length = self._u64()
        if length * least > self._end - self._at:
            raise InvalidModel(
                f"The header announces {length:,} items in {what[:MAX_SHOWN]!r}: it is damaged or cut off."
            )
        return length

    def _u32(self) -> int:
        value: int = _U32.unpack(self._take(4))[0]
        return value

    def _u64(self) -> int:
        value: int = _U64.unpack(self._take(8))[0]
        return value

    @override
    def _cut_off(self) -> InvalidModel:
        return InvalidModel("The file ends inside its header: it is cut off, or no GGUF file.")
