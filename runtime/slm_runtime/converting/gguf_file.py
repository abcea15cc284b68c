"""A decoder out of a GGUF file, and the vocabulary beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from slm_runtime.converting.configs import genai_config, tokenizer_config
from slm_runtime.converting.convert import as_json
from slm_runtime.converting.decoder import REMEDY, Decoder, Names, Shape, Tensors, assemble
from slm_runtime.converting.dequantizing import DEQUANTIZERS, Bytes, dequantize
from slm_runtime.converting.matrix import Matrix, Rows
from slm_runtime.converting.rotation import frequencies
from slm_runtime.converting.tokenizer import read_vocabulary, tokenizer_json
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture, UnsupportedQuantization
from slm_runtime.models.ggml import BLOCKS, tensor_bytes
from slm_runtime.models.gguf import Header, Tensor, read_header
from slm_runtime.models.metadata import Metadata
from slm_runtime.models.sources.artifact import FileBlob

VOCABULARY: Final = (
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
)
FAMILIES: Final = ("llama", "qwen2", "qwen3", "phi3")
INTERLEAVED: Final = frozenset({"llama"})
"""Architectures that llama.cpp rotates by neighbours: their queries and keys lie in that order, and go back here."""
_NAMES: Final = Names(
    embeddings="token_embd",
    head="output",
    norm="output_norm",
    block="blk",
    attention_norm="attn_norm",
    q="attn_q",
    k="attn_k",
    v="attn_v",
    qkv="attn_qkv",
    q_norm="attn_q_norm",
    k_norm="attn_k_norm",
    output="attn_output",
    feed_forward_norm="ffn_norm",
    gate="ffn_gate",
    up="ffn_up",
    gate_up="ffn_up",
    down="ffn_down",
)
_FACTORS: Final = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


@dataclass(frozen=True)
class GgufFile:
    """A file that was opened: its header with the whole vocabulary, and its tensors' bytes."""

    path: Path
    header: Header
    metadata: Metadata
    matrices: dict[str, Matrix]

    def decoder(self) -> Decoder:
        """The model.

        Raises
        ------
        InvalidModel
        UnsupportedArchitecture
        """
        architecture = self.metadata.text("general.architecture")
        if architecture not in FAMILIES:
            raise UnsupportedArchitecture(
                f"{self.path.name} is a {architecture!r} model; of GGUF files those of {', '.join(FAMILIES)} are exported.",
                REMEDY,
            )
        matrices = dict(self.matrices)
        factors: dict[str, Matrix] = {name: matrices.pop(name) for name in _FACTORS if name in matrices}
        shape = _shape(self.metadata, architecture, factors)
        if architecture in INTERLEAVED:
            _uninterleave(shape, matrices)
        embeddings = matrices.get("token_embd.weight")
        if embeddings is None:
            raise InvalidModel(f"{self.path.name} has no tensor token_embd.weight.", REMEDY)
        return assemble(shape, Tensors(matrices), _NAMES, embeddings.rows)

    def texts(self, decoder: Decoder) -> dict[str, str | bytes]:
        """Tokenizer, template and configurations.

        Raises
        ------
        InvalidModel
        UnsupportedArchitecture
            The tokenizer is of a kind that isn't exported.
        """
        vocabulary = read_vocabulary(self.header)
        texts: dict[str, str | bytes] = {
            "tokenizer.json": as_json(tokenizer_json(vocabulary)),
            "tokenizer_config.json": tokenizer_config(vocabulary, decoder.shape.context_length),
            "genai_config.json": genai_config(
                decoder, bos=vocabulary.bos, ends=vocabulary.ends, padding=vocabulary.padding
            ),
        }
        if template := self.metadata.text("tokenizer.chat_template"):
            texts["chat_template.jinja"] = template
        return texts


def open_gguf(path: Path) -> GgufFile:
    """Open a file; nothing but its header is read.

    Raises
    ------
    InvalidModel
        It is none, or cut off.
    UnsupportedQuantization
        A tensor's format isn't read.
    """
    size = path.stat().st_size
    with FileBlob(path).read() as chunks:
        header = read_header(chunks, size, VOCABULARY)
    metadata = Metadata(header)
    if metadata.number("split.count", 0) > 1:
        raise InvalidModel(
            f"{path.name} is one of {metadata.number('split.count')} parts of a model.",
            "Join them with `llama-gguf-split --merge`, and name the one file.",
        )
    mapped = np.memmap(path, np.uint8, "r")
    matrices = {tensor.name: _matrix(tensor, header.data_offset, mapped) for tensor in header.tensors}
    return GgufFile(path, header, metadata, matrices)


def _matrix(tensor: Tensor, start: int, mapped: Bytes) -> Matrix:
    kind = BLOCKS[tensor.type][0] if tensor.type in BLOCKS else f"number {tensor.type}"
    if kind not in DEQUANTIZERS:
        raise UnsupportedQuantization(
            f"Tensor {tensor.name} is in the format {kind}; {', '.join(DEQUANTIZERS)} are read.",
            "Name a file in F16, Q8_0 or Q4_0.",
        )
    if len(tensor.shape) > 2:
        raise UnsupportedArchitecture(
            f"Tensor {tensor.name} has {len(tensor.shape)} dimensions; experts aren't exported.", REMEDY
        )
    begin, length = start + tensor.offset, tensor_bytes(tensor.type, tensor.elements) or 0
    rows = tensor.shape[1] if len(tensor.shape) == 2 else 1
    if begin + length > len(mapped) or not length or length % rows:
        raise InvalidModel(
            f"The file ends inside tensor {tensor.name}: it is cut off.", "Fetch the file again."
        )
    return Matrix((Rows(kind, mapped[begin : begin + length].reshape(rows, -1)),))


def _shape(metadata: Metadata, architecture: str, factors: dict[str, Matrix]) -> Shape:
    def key(name: str) -> str:
        return f"{architecture}.{name}"

    blocks, heads = metadata.number(key("block_count")), metadata.number(key("attention.head_count"))
    embedding, context = metadata.number(key("embedding_length")), metadata.number(key("context_length"))
    kv_heads = set(metadata.each_block(key("attention.head_count_kv"), blocks, heads))
    if not blocks or not heads or len(kv_heads) != 1 or 0 in kv_heads:
        raise UnsupportedArchitecture(
            f"Its blocks have {', '.join(map(str, sorted(kv_heads)))} key/value heads; only one number for all is exported.",
            REMEDY,
        )
    head = metadata.number(key("attention.key_length"), embedding // heads)
    if metadata.number(key("attention.value_length"), head) != head:
        raise UnsupportedArchitecture("Its keys and values differ in length, which isn't exported.", REMEDY)
    rotated = metadata.number(key("rope.dimension_count"), head)
    turned = frequencies(metadata.factor(key("rope.freq_base")) or 10_000.0, rotated)
    scaling = metadata.text(key("rope.scaling.type")) or "none"
    factor = metadata.factor(key("rope.scaling.factor")) or metadata.factor(key("rope.scale_linear")) or 1.0
    if scaling == "linear":
        turned = turned / np.float32(factor)
    elif scaling not in {"none", "longrope"}:
        raise UnsupportedArchitecture(
            f"The model scales its positions by {scaling!r}, which isn't exported.", REMEDY
        )
    scale = 1.0
    if "rope_freqs.weight" in factors:
        turned = turned / _numbers(factors["rope_freqs.weight"], len(turned))
    if "rope_factors_short.weight" in factors:
        # Within one graph a position can't depend on how long a text gets: only short texts are exported.
        turned = turned / _numbers(factors["rope_factors_short.weight"], len(turned))
        scale = metadata.factor(key("rope.scaling.attn_factor")) or 1.0
        context = min(context, metadata.number(key("rope.scaling.original_context_length"), context))
    return Shape(
        family=architecture,
        context_length=context,
        embedding=embedding,
        blocks=blocks,
        heads=heads,
        kv_heads=kv_heads.pop(),
        head=head,
        epsilon=metadata.factor(key("attention.layer_norm_rms_epsilon")) or 1e-5,
        frequencies=turned,
        rotation_scale=scale,
        window=metadata.number(key("attention.sliding_window"), 0) or None,
    )


def _numbers(matrix: Matrix, length: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    found = np.concatenate(list(matrix.numbers())).reshape(-1)
    if len(found) != length:
        raise InvalidModel(f"The model has {len(found)} factors for {length} rotations.", REMEDY)
    return found


def _uninterleave(shape: Shape, matrices: dict[str, Matrix]) -> None:
    """Bring queries' and keys' rows from pairs of neighbours to halves."""
    for block in range(shape.blocks):
        for name, heads in (("attn_q", shape.heads), ("attn_k", shape.kv_heads)):
            order = np.arange(heads * shape.head).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
            if (weight := matrices.get(f"blk.{block}.{name}.weight")) and weight.rows == len(order):
                matrices[f"blk.{block}.{name}.weight"] = weight.reordered(order)
            if (bias := matrices.get(f"blk.{block}.{name}.bias")) and bias.columns == len(order):
                numbers = dequantize(bias.parts[0].kind, bias.parts[0].raw)[:, order]
                matrices[f"blk.{block}.{name}.bias"] = Matrix((Rows("F32", numbers.view(np.uint8)),))
