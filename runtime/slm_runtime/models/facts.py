"""From a GGUF header to the facts that memory is computed from."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from slm_contract.report import ModelFacts
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture, UnsupportedFormat
from slm_runtime.models.ggml import BLOCKS, FILE_TYPES, tensor_bytes
from slm_runtime.models.gguf import Array, Header, read_header

MAX_BLOCKS: Final = 512
"""The largest models have 126. More would not fit into a termination message."""
ENCODERS: Final = {"gemma-embedding", "llama-embed", "t5encoder"}
"""Those whose files don't say so by `attention.causal`."""
MAX_NUMBER: Final = 1 << 31
MAX_NAME: Final = 200


def model_facts(files: Sequence[tuple[str, int, Iterable[bytes]]]) -> ModelFacts:
    """Read as much of a model's files as their headers take, and say what it is.

    Parameters
    ----------
    files
        Path, size in bytes, and the bytes from the start; the first is what an engine opens.

    Raises
    ------
    InvalidModel
        No GGUF file, a damaged or incomplete one, or no language model.
    UnsupportedFormat
        A GGUF file that this runtime can't read.
    UnsupportedArchitecture
        A model that generates no text.
    """
    file_name, size, chunks = files[0]
    header = read_header(chunks, size)
    metadata = _Metadata(header)
    architecture = metadata.text("general.architecture")
    if not architecture:
        raise InvalidModel("The GGUF file doesn't name its general.architecture.")
    _check_kind(metadata, architecture)
    _check_complete(header, size)
    embedding = metadata.number(f"{architecture}.embedding_length")
    heads = metadata.largest(f"{architecture}.attention.head_count")
    blocks = metadata.number(f"{architecture}.block_count")
    if not 1 <= blocks <= MAX_BLOCKS:
        raise InvalidModel(f"{architecture}.block_count is {blocks}; 1 to {MAX_BLOCKS} can be.")
    head = embedding // heads if heads else 0
    return ModelFacts(
        file_name=file_name,
        size_bytes=size,
        architecture=architecture[:MAX_NAME],
        name=(metadata.text("general.name") or "")[:MAX_NAME] or None,
        quantization=_quantization(header, metadata),
        parameter_count=sum(tensor.elements for tensor in header.tensors),
        weights_bytes=size - header.data_offset,
        context_length=metadata.number(f"{architecture}.context_length"),
        block_count=blocks,
        embedding_length=embedding,
        feed_forward_length=metadata.largest(f"{architecture}.feed_forward_length", 0),
        head_count=heads,
        kv_heads=metadata.each_block(f"{architecture}.attention.head_count_kv", blocks, heads),
        key_length=metadata.number(f"{architecture}.attention.key_length", head),
        value_length=metadata.number(f"{architecture}.attention.value_length", head),
        vocab_size=metadata.length("tokenizer.ggml.tokens")
        or metadata.number(f"{architecture}.vocab_size", 0),
        sliding_window=metadata.number(f"{architecture}.attention.sliding_window", 0) or None,
        has_chat_template=metadata.text("tokenizer.chat_template") is not None,
    )


def _check_kind(metadata: "_Metadata", architecture: str) -> None:
    kind = metadata.text("general.type")
    if kind not in {None, "model"}:
        raise InvalidModel(f"The GGUF file is of type {kind!r}, not a model.")
    parts = metadata.number("split.count", 0)
    if parts > 1:
        raise UnsupportedFormat(
            f"The GGUF file is one of {parts} parts of a model.",
            "Merge the parts into one file with `llama-gguf-split --merge` and publish that.",
        )
    if architecture in ENCODERS or not metadata.flag(f"{architecture}.attention.causal", default=True):
        raise UnsupportedArchitecture(
            f"The model, of the architecture {architecture[:MAX_NAME]}, is an encoder: it generates no text.",
            "Choose a model that generates text; it makes embeddings too.",
        )


def _check_complete(header: Header, size: int) -> None:
    if not header.tensors:
        raise InvalidModel("The GGUF file has no tensors: it is only a vocabulary or a header.")
    for tensor in header.tensors:
        length = tensor_bytes(tensor.type, tensor.elements) or 0
        if header.data_offset + tensor.offset + length > size:
            raise InvalidModel(
                f"The file has {size:,} bytes, but its tensor {tensor.name[:MAX_NAME]!r} lies behind them:"
                " it is cut off."
            )


def _quantization(header: Header, metadata: "_Metadata") -> str | None:
    """The name of the whole file's quantization, else that of most of its parameters."""
    named = FILE_TYPES.get(metadata.number("general.file_type", -1))
    if named:
        return named
    weights: Counter[int] = Counter()
    for tensor in header.tensors:
        weights[tensor.type] += tensor.elements
    kind = weights.most_common(1)[0][0]
    return BLOCKS[kind][0] if kind in BLOCKS else None


class _Metadata:
    """Typed look-ups that answer a wrong type with a sentence."""

    def __init__(self, header: Header) -> None:
        self._values = header.metadata

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise InvalidModel(f"{key} is no text.")

    def number(self, key: str, default: int | None = None) -> int:
        """Return a non-negative integer, or the default where the key is absent."""
        value = self._values.get(key, default)
        if value is None:
            raise InvalidModel(f"The GGUF file has no {key}: it is damaged, or no language model.")
        if type(value) is not int or (value < 0 and value != default) or value >= MAX_NUMBER:
            raise InvalidModel(f"{key} is {value!r}, no sensible number.")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key, default)
        if isinstance(value, bool):
            return value
        raise InvalidModel(f"{key} is neither true nor false.")

    def largest(self, key: str, default: int | None = None) -> int:
        """Return a number, or the largest of one for each block."""
        value = self._values.get(key)
        if isinstance(value, Array):
            return max(self._numbers(key, value), default=0)
        return self.number(key, default)

    def each_block(self, key: str, blocks: int, default: int) -> tuple[int, ...]:
        """Return one number for each block, whether the file has one for all or one for each."""
        value = self._values.get(key)
        if isinstance(value, Array):
            numbers = self._numbers(key, value)
            if len(numbers) < blocks:
                raise InvalidModel(f"{key} has {len(numbers)} items for {blocks} blocks.")
            return numbers[:blocks]
        return (self.number(key, default),) * blocks

    def length(self, key: str) -> int:
        value = self._values.get(key)
        return value.length if isinstance(value, Array) else 0

    def _numbers(self, key: str, value: Array) -> tuple[int, ...]:
        if value.values is None or any(not 0 <= item < MAX_NUMBER for item in value.values):
            raise InvalidModel(f"{key} is no list of sensible numbers.")
        return value.values
