"""Tiny random encoders as real GGUF files, and what they give for tokens, written out with numpy.

The tokenizer is WordPiece: words, and letters to spell others with.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGUFWriter, LlamaFileType, PoolingType, TokenType
from numpy.typing import NDArray

from tests.support.gguf import WORDS

Array = NDArray[np.float64]

_EMBEDDING: Final = 64
_HEADS: Final = 2
_HEAD: Final = _EMBEDDING // _HEADS
_FEED_FORWARD: Final = 128
_BLOCKS: Final = 2
_EXPERTS: Final = 4
_EPSILON: Final = 1e-12
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS: Final = 2
SEP: Final = 3


def _pieces() -> list[str]:
    """As GGUF files have them: what begins a word is marked, what goes on isn't."""
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    return [*_SPECIAL, *(f"▁{each}" for each in [*letters, *WORDS.lower().split()]), *letters]


PIECES: Final = list(dict.fromkeys(_pieces()))


@dataclass
class TinyEncoder:
    """One of the architectures `bert`, `nomic-bert`, `nomic-bert-moe`, `jina-bert-v2`."""

    path: Path
    architecture: str = "bert"
    pooling: PoolingType | None = PoolingType.MEAN
    context_length: int = 128
    pooler: bool = False
    """A reranker's layer before the one that scores."""
    seed: int = 0
    labels: tuple[str, ...] = ()
    vocabulary: int = len(PIECES)
    """More pieces are words of no text."""
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        for name, shape in self._shapes().items():
            spread = 1.6 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.1
            values = random.normal(0, spread, shape).astype(np.float32)
            self.weights[name] = values + 1 if "norm" in name and name.endswith("weight") else values

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        embedding = _EMBEDDING
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocabulary, embedding),
            "token_types.weight": (2, embedding),
            "token_embd_norm.weight": (embedding,),
            "token_embd_norm.bias": (embedding,),
        }
        if self.architecture == "bert":
            shapes["position_embd.weight"] = (self.context_length, embedding)
        for block in range(_BLOCKS):
            for name, shape in self._block(block).items():
                shapes[f"blk.{block}.{name}"] = shape
            for name in ("attn_output_norm", "layer_output_norm"):
                for kind in ("weight", "bias"):
                    shapes[f"blk.{block}.{name}.{kind}"] = (embedding,)
        if self.pooling is PoolingType.RANK:
            if self.pooler:
                shapes |= {"cls.weight": (embedding, embedding), "cls.bias": (embedding,)}
            classes = max(1, len(self.labels))
            shapes |= {"cls.output.weight": (classes, embedding), "cls.output.bias": (classes,)}
        return shapes

    def _block(self, block: int) -> dict[str, tuple[int, ...]]:
        embedding, inner = _EMBEDDING, _FEED_FORWARD
        out = {"attn_output.weight": (embedding, embedding)}
        if self.architecture.startswith("nomic"):
            shapes = {"attn_qkv.weight": (3 * embedding, embedding), **out}
        else:
            shapes = {f"attn_{each}.weight": (embedding, embedding) for each in "qkv"}
            shapes |= {f"attn_{each}.bias": (embedding,) for each in "qkv"}
            shapes |= {**out, "attn_output.bias": (embedding,)}
        if self._has_experts(block):
            return shapes | {
                "ffn_gate_inp.weight": (_EXPERTS, embedding),
                "ffn_up_exps.weight": (_EXPERTS, inner, embedding),
                "ffn_down_exps.weight": (_EXPERTS, embedding, inner),
            }
        shapes |= {"ffn_up.weight": (inner, embedding), "ffn_down.weight": (embedding, inner)}
        if self.architecture in {"nomic-bert", "jina-bert-v2"}:
            shapes["ffn_gate.weight"] = (inner, embedding)
        if self.architecture == "bert":
            shapes["ffn_up.bias"] = (inner,)
        if self.architecture in {"bert", "jina-bert-v2"}:
            shapes["ffn_down.bias"] = (embedding,)
        return shapes

    def _has_experts(self, block: int) -> bool:
        return self.architecture == "nomic-bert-moe" and block % 2 == 1

    def write(self) -> Path:
        writer = GGUFWriter(self.path, self.architecture)
        writer.add_name(f"tiny {self.architecture}")
        writer.add_file_type(LlamaFileType.ALL_F32)
        writer.add_context_length(self.context_length)
        writer.add_embedding_length(_EMBEDDING)
        writer.add_block_count(_BLOCKS)
        writer.add_feed_forward_length(_FEED_FORWARD)
        writer.add_head_count(_HEADS)
        writer.add_layer_norm_eps(_EPSILON)
        writer.add_causal_attention(False)
        if self.pooling is not None:
            writer.add_pooling_type(self.pooling)
        if self.architecture.startswith("nomic"):
            writer.add_rope_freq_base(1000.0)
        if self.architecture == "nomic-bert-moe":
            writer.add_moe_every_n_layers(2)
            writer.add_expert_count(_EXPERTS)
            writer.add_expert_used_count(2)
        if self.labels:
            writer.add_classifier_output_labels(self.labels)
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("default")
        writer.add_token_type_count(2)
        pieces = PIECES + [f"▁~{number}" for number in range(self.vocabulary - len(PIECES))]
        writer.add_token_list(pieces)
        writer.add_token_types(
            [int(TokenType.CONTROL if piece in _SPECIAL else TokenType.NORMAL) for piece in pieces]
        )
        writer.add_pad_token_id(0)
        writer.add_unk_token_id(1)
        writer.add_bos_token_id(CLS)
        writer.add_sep_token_id(SEP)
        writer.add_mask_token_id(4)
        for name, values in self.weights.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return self.path

    def row(self, tokens: list[int]) -> Array:
        """What the engine gives for an input: its vector, or its score."""
        hidden = self._hidden(tokens)
        if self.pooling is PoolingType.LAST:
            return hidden[-1]
        if self.pooling is PoolingType.CLS:
            return hidden[0]
        if self.pooling is not PoolingType.RANK:
            return hidden.mean(axis=0)
        first = hidden[0]
        if self.pooler:
            first = np.tanh(self._linear("cls", first))
        return self._linear("cls.output", first)

    def _hidden(self, tokens: list[int]) -> Array:
        x = self._weight("token_embd.weight")[tokens] + self._weight("token_types.weight")[0]
        if self.architecture == "bert":
            x = x + self._weight("position_embd.weight")[: len(tokens)]
        x = self._norm("token_embd_norm", x)
        for block in range(_BLOCKS):
            prefix = f"blk.{block}."
            x = self._norm(prefix + "attn_output_norm", x + self._attention(prefix, x))
            x = self._norm(prefix + "layer_output_norm", x + self._feed_forward(block, x))
        return x

    def _attention(self, prefix: str, x: Array) -> Array:
        if self.architecture.startswith("nomic"):
            query, key, value = np.split(self._linear(prefix + "attn_qkv", x), 3, axis=-1)
        else:
            query, key, value = (self._linear(f"{prefix}attn_{each}", x) for each in "qkv")
        places = np.arange(len(x))
        far = np.abs(places[:, None] - places[None, :])
        heads = []
        for head in range(_HEADS):
            columns = slice(head * _HEAD, (head + 1) * _HEAD)
            q, k = query[:, columns], key[:, columns]
            if self.architecture.startswith("nomic"):
                q, k = _rotated(q), _rotated(k)
            scores = q @ k.T / np.sqrt(_HEAD)
            if self.architecture == "jina-bert-v2":
                scores -= far * 2.0 ** (-8 / _HEADS * (head + 1))
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            heads.append(weights / weights.sum(axis=-1, keepdims=True) @ value[:, columns])
        return self._linear(prefix + "attn_output", np.concatenate(heads, axis=-1))

    def _feed_forward(self, block: int, x: Array) -> Array:
        prefix = f"blk.{block}."
        if self._has_experts(block):
            return self._mixed(prefix, x)
        up = self._linear(prefix + "ffn_up", x)
        if self.architecture == "nomic-bert":
            gate = self._linear(prefix + "ffn_gate", x)
            inner = gate / (1 + np.exp(-gate)) * up
        elif self.architecture == "jina-bert-v2":
            inner = _gelu(self._linear(prefix + "ffn_gate", x)) * up
        else:
            inner = _gelu(up)
        return self._linear(prefix + "ffn_down", inner)

    def _mixed(self, prefix: str, x: Array) -> Array:
        """The two likeliest experts of each token, by their likelihoods among all."""
        logits = self._linear(prefix + "ffn_gate_inp", x)
        likely = np.exp(logits - logits.max(axis=-1, keepdims=True))
        likely /= likely.sum(axis=-1, keepdims=True)
        up, down = self._weight(prefix + "ffn_up_exps.weight"), self._weight(prefix + "ffn_down_exps.weight")
        rows = []
        for token, chances in zip(x, likely, strict=True):
            best = np.argsort(-chances)[:2]
            rows.append(sum(chances[each] * (down[each] @ _gelu(up[each] @ token)) for each in best))
        return np.array(rows)

    def _linear(self, name: str, x: Array) -> Array:
        y: Array = x @ self._weight(f"{name}.weight").T
        return y + self._weight(f"{name}.bias") if f"{name}.bias" in self.weights else y

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
        result: Array = scaled * self._weight(f"{name}.weight") + self._weight(f"{name}.bias")
        return result

    def _weight(self, name: str) -> Array:
        return self.weights[name].astype(np.float64)


def _gelu(x: Array) -> Array:
    y: Any = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y


def _rotated(x: Array) -> Array:
    """By its place: each number of the first half with the one in the same place of the second."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * 1000.0 ** (-np.arange(half) / half)[None, :]
    first, second = x[:, :half], x[:, half:]
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), first * np.sin(angles) + second * np.cos(angles)],
        axis=-1,
    )
