"""The headers of a model's files, read as one: a model may be split into shards."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from slm_runtime.errors import InvalidModel
from slm_runtime.models.ggml import tensor_bytes
from slm_runtime.models.gguf import Header, Tensor, read_header
from slm_runtime.models.metadata import Metadata

MAX_NAME: Final = 200
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

File = tuple[str, int, Iterable[bytes]]
"""Path, size in bytes, and the bytes from the start."""


@dataclass(frozen=True)
class Headers:
    """What all files of a model say together."""

    first: Header
    """That of the file that an engine opens; it has the metadata."""
    tensors: tuple[Tensor, ...]
    weights_bytes: int


def read_headers(files: Sequence[File]) -> Headers:
    """Read the first file, and its shards where it is the first of some; other files aren't opened.

    Raises
    ------
    InvalidModel
        A file is damaged or cut off, or a shard is missing.
    UnsupportedFormat
        A GGUF file that this runtime can't read.
    """
    path, size, chunks = files[0]
    first = read_header(chunks, size)
    metadata = Metadata(first)
    count = metadata.number("split.count", 0)
    if count <= 1:
        return _joined([(path, size, first)])
    rest = _named(path, count, metadata, files)
    read = [(path, size, first)]
    for number, (name, length, data) in enumerate(rest, start=1):
        header = read_header(data, length)
        if Metadata(header).number("split.no") != number:
            raise InvalidModel(f"{name} isn't shard {number + 1} of {count}, as its name says.")
        read.append((name, length, header))
    joined = _joined(read)
    announced = metadata.number("split.tensors.count", len(joined.tensors))
    if announced != len(joined.tensors):
        raise InvalidModel(
            f"The {count} shards have {len(joined.tensors)} tensors, and {path} announces {announced}."
        )
    return joined


def _named(path: str, count: int, metadata: Metadata, files: Sequence[File]) -> list[File]:
    """The other shards, by the names that llama.cpp looks for."""
    named = _SHARD.fullmatch(path)
    if metadata.number("split.no") != 0 or named is None or int(named["number"]) != 1:
        raise InvalidModel(
            f"{path} is no first shard of {count}.",
            f"Name the file that ends in -00001-of-{count:05}.gguf, and publish all shards beside it.",
        )
    by_path = {name: (name, size, chunks) for name, size, chunks in files}
    found = []
    for number in range(2, count + 1):
        name = f"{named['stem']}-{number:05}-of-{count:05}.gguf"
        if name not in by_path:
            raise InvalidModel(
                f"The model has {count} shards, and {name} is missing.", f"Publish {name} beside {path}."
            )
        found.append(by_path[name])
    return found


def _joined(read: Sequence[tuple[str, int, Header]]) -> Headers:
    tensors: dict[str, Tensor] = {}
    for name, size, header in read:
        for tensor in header.tensors:
            length = tensor_bytes(tensor.type, tensor.elements) or 0
            if header.data_offset + tensor.offset + length > size:
                raise InvalidModel(
                    f"{name} has {size:,} bytes, but its tensor {tensor.name[:MAX_NAME]!r} lies behind them:"
                    " it is cut off."
                )
            if tensor.name in tensors:
                raise InvalidModel(f"{name} has a second tensor {tensor.name[:MAX_NAME]!r}.")
            tensors[tensor.name] = tensor
    return Headers(
        first=read[0][2],
        tensors=tuple(tensors.values()),
        weights_bytes=sum(max(size - header.data_offset, 0) for _, size, header in read),
    )
