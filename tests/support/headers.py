"""GGUF files of many architectures.

Those with the metadata and tensors of real models have none of their weights: llama.cpp loads them without memory. The file
is sparse: as long as the model's, and as large on disk as its header. Tiny ones are whole, and can be computed with.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quant_shape_to_byte_shape

from tests.support.gguf import CHATML, add_sentence_pieces

Tensors = Iterator[tuple[str, tuple[int, ...]]]
ALIGNMENT: Final = 32


@dataclass(frozen=True)
class Model:
    """One model as its header describes it. Shapes are as GGUF has them: columns first."""

    architecture: str
    vocabulary: int
    embedding: int
    blocks: int
    block: Callable[["Model", int], Tensors]
    """Tensors of one block, without their `blk.N.`"""
    context: int = 32768
    heads: int = 0
    kv_heads: int | tuple[int, ...] = 0
    head: int = 0
    """Numbers of one head's key and value; 0: embedding by heads."""
    feed_forward: int = 0
    outputs: tuple[str, ...] = ("output_norm.weight",)
    tied: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)
    """Metadata below the architecture's name."""
    whole: Callable[["Model"], Tensors] | None = None
    """More tensors of the whole model."""

    @property
    def width(self) -> int:
        return self.head or self.embedding // max(self.heads, 1)

    def kv_heads_of(self, block: int) -> int:
        return self.kv_heads if isinstance(self.kv_heads, int) else self.kv_heads[block]

    def tensors(self) -> Tensors:
        yield "token_embd.weight", (self.embedding, self.vocabulary)
        for name in self.outputs:
            yield name, (self.embedding,)
        if not self.tied:
            yield "output.weight", (self.embedding, self.vocabulary)
        if self.whole is not None:
            yield from self.whole(self)
        for block in range(self.blocks):
            for name, shape in self.block(self, block):
                yield f"blk.{block}.{name}", shape

    def metadata(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "context_length": self.context,
            "embedding_length": self.embedding,
            "block_count": self.blocks,
            "vocab_size": self.vocabulary,
            "attention.layer_norm_rms_epsilon": 1e-5,
        }
        if self.feed_forward:
            values["feed_forward_length"] = self.feed_forward
        if self.heads:
            values["attention.head_count"] = self.heads
            values["attention.head_count_kv"] = self.kv_heads
        if self.head:
            values["attention.key_length"] = values["attention.value_length"] = self.head
        return {**values, **self.more}


def write_header(path: Path, model: Model, kind: GGMLQuantizationType = GGMLQuantizationType.F16) -> Path:
    """Write the file of a model whose matrices are all of one kind, and return its path."""
    writer = GGUFWriter(path, model.architecture)
    writer.add_name(model.architecture)
    writer.add_tokenizer_model("none")
    writer.add_token_type_count(2)
    for key, value in model.metadata().items():
        _add(writer, f"{model.architecture}.{key}", value)
    size = 0
    for name, shape in model.tensors():
        plain = len(shape) == 1 or "conv" in name or shape[0] % 32 != 0
        used = GGMLQuantizationType.F32 if plain else kind
        rows = shape[::-1]
        stored = quant_shape_to_byte_shape(rows, used) if used is not GGMLQuantizationType.F32 else rows
        count = int(np.prod(stored)) * (4 if used is GGMLQuantizationType.F32 else 1)
        dtype = np.dtype(np.float32) if used is GGMLQuantizationType.F32 else np.dtype(np.uint8)
        writer.add_tensor_info(name, stored, dtype, count, raw_dtype=used)
        size += -(-count // ALIGNMENT) * ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // ALIGNMENT) * ALIGNMENT
    with path.open("r+b") as file:
        file.truncate(start + size)
    return path


def write_tiny(path: Path, model: Model, seed: int = 0) -> Path:
    """Write all of a model whose numbers are drawn, with the tiny model's tokenizer and chat template."""
    writer = GGUFWriter(path, model.architecture)
    writer.add_name(model.architecture)
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_chat_template(CHATML)
    whole = replace(model, vocabulary=add_sentence_pieces(writer))
    for key, value in whole.metadata().items():
        if key != "vocab_size":
            _add(writer, f"{model.architecture}.{key}", value)
    random = np.random.default_rng(seed)
    for name, shape in whole.tensors():
        writer.add_tensor(name, _drawn(name, shape[::-1], random))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _drawn(
    name: str, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if "norm" in name or name.endswith("ssm_d"):
        return np.ones(shape, np.float32)
    if name.endswith("ssm_a"):
        return np.full(shape, -1, np.float32)  # what a state forgets with each token
    return random.normal(0, 1.6 / np.sqrt(shape[-1]), shape).astype(np.float32)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, list(value))
