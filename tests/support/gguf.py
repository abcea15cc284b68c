"""A tiny random llama model as a real GGUF file: llama.cpp loads it, and equal arguments give equal bytes.

The tokenizer is SentencePiece-like with all 256 byte tokens, so every text round-trips, and random output is often
invalid UTF-8, cut inside characters: what streaming has to cope with.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gguf import GGUFValueType, GGUFWriter, LlamaFileType, PoolingType, TokenType

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    " the of and a to in is you that it he was for on are as with his they I at be this have from or one had by"
    " word but not what all were we when your can said there use an each which she do how their if will up other"
)


Matrix: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 0,
    blocks: int = 2,
    context_length: int = 2048,
    chat_template: str | None = CHATML,
    name: str = "tiny",
    sliding_window: int | None = None,
    pooling: PoolingType | None = None,
    architecture: str = "llama",
    pre: str | None = None,
    control: Sequence[str] = (),
    shard_tensors: int = 0,
    changes: Mapping[str, Matrix] | None = None,
) -> Path:
    """Write about half a MiB to `path` and return it.

    With `shard_tensors` it is split into shards of so many tensors beside `path`, and the first one's path is returned.
    With a sliding window it is a Gemma 3, whose layers differ; with the name of a pre-tokenizer, `pre`, its tokens are byte
    pairs, which that one finds the words for. `control` are more tokens of a meaning; `changes` are added to its tensors.
    """
    embedding, heads, kv_heads, feed_forward = 64, 2, 1, 128
    head = embedding // heads
    vocabulary = _sentence_pieces(control) if pre is None else _bytepairs()
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Matrix:
        return random.normal(0, 0.4 / np.sqrt(columns) * 4, (rows, columns)).astype(np.float32)

    architecture = architecture if sliding_window is None else "gemma3"
    writer = GGUFWriter(path, architecture, split_max_tensors=shard_tensors)
    if sliding_window is not None:
        writer.add_sliding_window(sliding_window)
        writer.add_key_length(head)
        writer.add_value_length(head)
    if architecture == "qwen2vl":
        writer.add_rope_dimension_sections([4, 6, 6, 0])
    if pooling is not None:
        writer.add_pooling_type(pooling)
    writer.add_name(name)
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_context_length(context_length)
    writer.add_embedding_length(embedding)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = vocabulary.tokens
    _add_vocabulary(writer, vocabulary, pre)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    writer.add_tensor("token_embd.weight", matrix(len(tokens), embedding))
    for block in range(blocks):
        prefix = f"blk.{block}"
        writer.add_tensor(f"{prefix}.attn_norm.weight", np.ones(embedding, np.float32))
        writer.add_tensor(f"{prefix}.attn_q.weight", matrix(embedding, embedding))
        writer.add_tensor(f"{prefix}.attn_k.weight", matrix(kv_heads * head, embedding))
        writer.add_tensor(f"{prefix}.attn_v.weight", matrix(kv_heads * head, embedding))
        writer.add_tensor(f"{prefix}.attn_output.weight", matrix(embedding, embedding))
        if sliding_window is not None:
            writer.add_tensor(f"{prefix}.attn_q_norm.weight", np.ones(head, np.float32))
            writer.add_tensor(f"{prefix}.attn_k_norm.weight", np.ones(head, np.float32))
            writer.add_tensor(f"{prefix}.post_attention_norm.weight", np.ones(embedding, np.float32))
            writer.add_tensor(f"{prefix}.post_ffw_norm.weight", np.ones(embedding, np.float32))
        writer.add_tensor(f"{prefix}.ffn_norm.weight", np.ones(embedding, np.float32))
        writer.add_tensor(f"{prefix}.ffn_gate.weight", matrix(feed_forward, embedding))
        writer.add_tensor(f"{prefix}.ffn_up.weight", matrix(feed_forward, embedding))
        writer.add_tensor(f"{prefix}.ffn_down.weight", matrix(embedding, feed_forward))
    writer.add_tensor("output_norm.weight", np.ones(embedding, np.float32))
    writer.add_tensor("output.weight", matrix(len(tokens), embedding))
    for tensors in writer.tensors:
        for tensor in tensors.keys() & (changes or {}).keys():
            tensors[tensor].tensor += (changes or {})[tensor]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return writer.format_shard_names(path)[0]


def add_sentence_pieces(writer: GGUFWriter) -> int:
    """Write the tiny model's tokenizer, and return how many tokens it has."""
    vocabulary = _sentence_pieces()
    _add_vocabulary(writer, vocabulary, None)
    return len(vocabulary.tokens)


def _add_vocabulary(writer: GGUFWriter, vocabulary: "_Vocabulary", pre: str | None) -> None:
    tokens = vocabulary.tokens
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama" if pre is None else "gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(vocabulary.types)
    if pre is None:
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(vocabulary.merges)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(tokens.index(b"<|im_end|>"))
    writer.add_add_bos_token(True)


@dataclass(frozen=True)
class TinyLora:
    """An adapter of the tiny model, with a share in all kinds of its tensors."""

    seed: int = 1
    rank: int = 4
    alpha: float = 8.0

    def write(self, path: Path, architecture: str = "llama", **metadata: Any) -> Path:
        """As a file; `metadata` are lists of numbers beside what such a file says."""
        writer = GGUFWriter(path, architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", self.alpha)
        for key, value in metadata.items():
            writer.add_key_value(
                key.replace("__", "."), value, GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT32
            )
        for name, (a, b) in self.pairs().items():
            writer.add_tensor(f"{name}.lora_a", a)
            writer.add_tensor(f"{name}.lora_b", b)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def changes(self, scale: float = 1.0) -> dict[str, Matrix]:
        """What it adds to the model's own weights."""
        factor = scale * self.alpha / self.rank
        return {name: (factor * b @ a).astype(np.float32) for name, (a, b) in self.pairs().items()}

    def pairs(self) -> dict[str, tuple[Matrix, Matrix]]:
        """By the name of a tensor, what is multiplied and added to it."""
        random = np.random.default_rng(self.seed)
        shapes = {"blk.0.attn_q": (64, 64), "blk.0.ffn_down": (64, 128), "blk.1.attn_v": (32, 64)}

        def matrix(rows: int, columns: int) -> Matrix:
            return random.normal(0, 0.3, (rows, columns)).astype(np.float32)

        return {
            f"{name}.weight": (matrix(self.rank, columns), matrix(rows, self.rank))
            for name, (rows, columns) in shapes.items()
        }


@dataclass(frozen=True)
class _Vocabulary:
    tokens: list[bytes]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)


_CONTROL = [b"<s>", b"</s>", b"<|im_start|>", b"<|im_end|>"]


def _sentence_pieces(more: Sequence[str] = ()) -> _Vocabulary:
    control = [*_CONTROL, *(each.encode() for each in more)]
    letters = ["▁", *(chr(c) for c in range(33, 127)), "\n"]
    pieces = list(dict.fromkeys([*letters, *("▁" + word for word in WORDS.split())]))
    tokens = [
        b"<unk>",
        *control,
        *(b"<0x%02X>" % byte for byte in range(256)),
        *(p.encode() for p in pieces),
    ]
    scores = [0.0] * (1 + len(control) + 256) + [-float(rank) for rank in range(len(pieces))]
    types = [
        int(TokenType.UNKNOWN),
        *[int(TokenType.CONTROL)] * len(control),
        *[int(TokenType.BYTE)] * 256,
        *[int(TokenType.NORMAL)] * len(pieces),
    ]
    return _Vocabulary(tokens, types, scores=scores)


def _bytepairs() -> _Vocabulary:
    """All bytes, words, and what runs are made of: of every pair that a pre-tokenizer keeps apart, one is a token."""
    letters = _byte_letters()
    words = dict.fromkeys(letters.values())
    merges: dict[str, None] = {}

    def merge(left: str, right: str) -> str:
        merges[f"{left} {right}"] = None
        words[left + right] = None
        return left + right

    joints = ["a b", "a\nb", "a,b", "a.", "a1", "b 1", "1a", "1 b", ", b", ".\n", "\n\nb", "  b", "é", "é b"]
    for word in [*"漢", *joints, *WORDS.split(), *(f" {word}" for word in WORDS.split())]:
        functools.reduce(merge, (letters[byte] for byte in word.encode()))
    for character in "A漢 \n-7":
        run = "".join(letters[byte] for byte in character.encode())
        for _ in range(4):
            run = merge(run, run)
    tokens = [b"<unk>", *_CONTROL, *(word.encode() for word in words)]
    types = [
        int(TokenType.UNKNOWN),
        *[int(TokenType.CONTROL)] * len(_CONTROL),
        *[int(TokenType.NORMAL)] * len(words),
    ]
    return _Vocabulary(tokens, types, merges=list(merges))


def _byte_letters() -> dict[int, str]:
    """How byte pair vocabularies write bytes: those that can be seen as themselves, the rest as letters from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(unseen)}
