"""A decoder, whichever file it comes from: its numbers, and its weights under one set of names.

What a block has is told by its tensors, not by its family: biases, norms of queries and keys, fused projections.
A tensor that nobody asked for is a part of the model that would be lost, so it is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from slm_runtime.converting.dequantizing import Floats
from slm_runtime.converting.matrix import Matrix, stacked
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture

REMEDY = "Use the model as GGUF with the llama.cpp engine, or convert it with the vendor's own builder."
HEAD_STEP: Final = 16


@dataclass(frozen=True)
class Shape:
    """What a decoder's header says."""

    family: str
    """As onnxruntime-genai calls it."""
    context_length: int
    embedding: int
    blocks: int
    heads: int
    kv_heads: int
    head: int
    """Length of a key."""
    epsilon: float
    frequencies: Floats
    """Rotation of each pair of a key's numbers from a position to the next, radians: half as many as are rotated."""
    rotation_scale: float = 1.0
    """What rotated queries and keys are multiplied by."""
    window: int | None = None
    """How many positions before its own a token sees; None: all."""


@dataclass(frozen=True)
class Block:
    attention_norm: Floats
    qkv: Matrix
    qkv_bias: Floats | None
    q_norm: Floats | None
    k_norm: Floats | None
    output: Matrix
    feed_forward_norm: Floats
    gate: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class Decoder:
    shape: Shape
    embeddings: Matrix
    head: Matrix | None
    """What makes logits; None: the embeddings do."""
    norm: Floats
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Names:
    """How a kind of file calls its tensors; those of a block follow its prefix."""

    embeddings: str
    head: str
    norm: str
    block: str
    attention_norm: str
    q: str
    k: str
    v: str
    qkv: str
    q_norm: str
    k_norm: str
    output: str
    feed_forward_norm: str
    gate: str
    up: str
    gate_up: str
    down: str


class Tensors:
    """A file's tensors, and which of them were taken."""

    def __init__(self, matrices: Mapping[str, Matrix]) -> None:
        self._matrices = matrices
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._matrices

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Take one.

        Raises
        ------
        InvalidModel
            There is none of that name and shape.
        """
        found = self._matrices.get(name)
        if found is None:
            raise InvalidModel(f"The model has no tensor {name}.", REMEDY)
        if (found.rows, found.columns) != (rows, columns):
            raise InvalidModel(
                f"Tensor {name} has {found.rows} by {found.columns} numbers where its header asks for {rows} by {columns}.",
                "Publish the model again: this one is damaged, or of an architecture that only looks like a known one.",
            )
        self._taken.add(name)
        return found

    def rows(self, name: str) -> int:
        """How many rows one has; 0 where there is none."""
        return self._matrices[name].rows if name in self else 0

    def vector(self, name: str, length: int) -> Floats:
        return np.concatenate(list(self.matrix(name, 1, length).numbers())).reshape(length)

    def vector_or_none(self, name: str, length: int) -> Floats | None:
        return self.vector(name, length) if name in self else None

    def all_taken(self) -> None:
        """Raise UnsupportedArchitecture where one was left."""
        left = sorted(self._matrices.keys() - self._taken)
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise UnsupportedArchitecture(
                f"The model has tensor {left[0]}{more}, which the exporter knows no place for.", REMEDY
            )


def assemble(shape: Shape, tensors: Tensors, names: Names, vocabulary: int) -> Decoder:
    """Take a decoder's tensors.

    Raises
    ------
    InvalidModel
        One is missing or has another shape.
    UnsupportedArchitecture
        One is left.
    """
    _sensible(shape)
    width = shape.embedding
    head = f"{names.head}.weight"
    # A file may repeat tied embeddings: then it is as good as any other.
    decoder = Decoder(
        shape,
        tensors.matrix(f"{names.embeddings}.weight", vocabulary, width),
        tensors.matrix(head, vocabulary, width) if head in tensors else None,
        tensors.vector(f"{names.norm}.weight", width),
        tuple(
            _block(shape, tensors, names, f"{names.block}.{number}.", width) for number in range(shape.blocks)
        ),
    )
    tensors.all_taken()
    return decoder


def _sensible(shape: Shape) -> None:
    """Raise where no graph can be made of such numbers."""
    least = min(shape.context_length, shape.embedding, shape.blocks, shape.heads, shape.kv_heads, shape.head)
    if least < 1 or shape.heads % shape.kv_heads or 2 * len(shape.frequencies) > shape.head:
        raise InvalidModel(f"The model's numbers make no sense: {shape.heads} heads of {shape.head}.", REMEDY)
    if shape.head % HEAD_STEP:
        raise UnsupportedArchitecture(
            f"The model's heads have a length of {shape.head}; onnxruntime computes multiples of {HEAD_STEP}.",
            REMEDY,
        )


def _block(shape: Shape, tensors: Tensors, names: Names, prefix: str, width: int) -> Block:
    qkv, bias = _attention(shape, tensors, names, prefix)
    gate, up = _gated(tensors, names, prefix, width)
    return Block(
        attention_norm=tensors.vector(f"{prefix}{names.attention_norm}.weight", width),
        qkv=qkv,
        qkv_bias=bias,
        q_norm=tensors.vector_or_none(f"{prefix}{names.q_norm}.weight", shape.head),
        k_norm=tensors.vector_or_none(f"{prefix}{names.k_norm}.weight", shape.head),
        output=tensors.matrix(f"{prefix}{names.output}.weight", width, shape.heads * shape.head),
        feed_forward_norm=tensors.vector(f"{prefix}{names.feed_forward_norm}.weight", width),
        gate=gate,
        up=up,
        down=tensors.matrix(f"{prefix}{names.down}.weight", width, gate.rows),
    )


def _attention(shape: Shape, tensors: Tensors, names: Names, prefix: str) -> tuple[Matrix, Floats | None]:
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    fused = f"{prefix}{names.qkv}"
    if f"{fused}.weight" in tensors:
        rows = queries + 2 * keys
        return (
            tensors.matrix(f"{fused}.weight", rows, shape.embedding),
            tensors.vector_or_none(f"{fused}.bias", rows),
        )
    parts = [(f"{prefix}{names.q}", queries), (f"{prefix}{names.k}", keys), (f"{prefix}{names.v}", keys)]
    matrix = stacked(*(tensors.matrix(f"{name}.weight", rows, shape.embedding) for name, rows in parts))
    if not any(f"{name}.bias" in tensors for name, _ in parts):
        return matrix, None
    biases = (tensors.vector_or_none(f"{name}.bias", rows) for name, rows in parts)
    return matrix, np.concatenate(
        [
            np.zeros(rows, np.float32) if bias is None else bias
            for bias, (_, rows) in zip(biases, parts, strict=True)
        ]
    )


def _gated(tensors: Tensors, names: Names, prefix: str, width: int) -> tuple[Matrix, Matrix]:
    """Gate and up projection, which some files have in one."""
    gate, up, both = (f"{prefix}{name}.weight" for name in (names.gate, names.up, names.gate_up))
    if gate in tensors:
        rows = tensors.rows(gate)
        return tensors.matrix(gate, rows, width), tensors.matrix(up, rows, width)
    rows = tensors.rows(both)
    fused = tensors.matrix(both, rows, width)
    half = rows // 2
    return fused.reordered(np.arange(half)), fused.reordered(np.arange(half, 2 * half))
