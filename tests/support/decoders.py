"""Tiny random decoders of several families, with the same weights as a GGUF file and as a Hugging Face folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, LlamaFileType

from tests.support.gguf import add_sentence_pieces

Weights = dict[str, "np.ndarray[Any, np.dtype[np.float32]]"]

VOCABULARY = 512
_BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@dataclass(frozen=True)
class TinyDecoder:
    """Two blocks; `head` need not be what the heads make of the embedding."""

    family: str
    tied: bool = False
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    rotated: int | None = None
    """Numbers of a key that positions turn; None: all."""
    llama3_scaling: bool = False
    seed: int = 0

    embedding, feed_forward, blocks = 96, 192, 2

    def weights(self) -> Weights:
        """By Hugging Face's names."""
        random = np.random.default_rng(self.seed)

        def matrix(rows: int, columns: int) -> Any:
            return random.normal(0, 1.4 / np.sqrt(columns), (rows, columns)).astype(np.float32)

        def norm(length: int) -> Any:
            return random.uniform(0.5, 1.5, length).astype(np.float32)

        width, inner = self.embedding, self.feed_forward
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        found = {"model.embed_tokens.weight": matrix(VOCABULARY, width), "model.norm.weight": norm(width)}
        if not self.tied:
            found["lm_head.weight"] = matrix(VOCABULARY, width)
        for block in range(self.blocks):
            part: Weights = {
                "input_layernorm.weight": norm(width),
                "post_attention_layernorm.weight": norm(width),
            }
            projections = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
            if self.family == "phi3":
                part["self_attn.qkv_proj.weight"] = matrix(queries + 2 * keys, width)
                part["mlp.gate_up_proj.weight"] = matrix(2 * inner, width)
            else:
                part |= {
                    f"self_attn.{name}.weight": matrix(rows, width) for name, rows in projections.items()
                }
                part |= {f"mlp.{name}_proj.weight": matrix(inner, width) for name in ("gate", "up")}
            if self.family == "qwen2":
                part |= {f"self_attn.{name}.bias": matrix(1, rows)[0] for name, rows in projections.items()}
            if self.family == "qwen3":
                part |= {f"self_attn.{name}_norm.weight": norm(self.head) for name in "qk"}
            part["self_attn.o_proj.weight"] = matrix(width, queries)
            part["mlp.down_proj.weight"] = matrix(width, inner)
            found |= {f"model.layers.{block}.{name}": numbers for name, numbers in part.items()}
        return found

    def factors(self) -> Any:
        """By how much each pair of a key's numbers turns more slowly: llama 3's rule, reckoned for itself."""
        waves = 2 * np.pi * 10_000.0 ** (np.arange(0, self.head, 2) / self.head)
        low, high = 64 / 1.0, 64 / 4.0
        smooth = (64 / waves - 1.0) / (4.0 - 1.0)
        between = 1 / ((1 - smooth) / 8.0 + smooth)
        return np.where(waves < high, 1.0, np.where(waves > low, 8.0, between)).astype(np.float32)

    def write_gguf(self, path: Path) -> Path:
        writer = GGUFWriter(path, self.family)
        writer.add_name("tiny")
        writer.add_file_type(LlamaFileType.ALL_F32)
        writer.add_context_length(256)
        writer.add_embedding_length(self.embedding)
        writer.add_block_count(self.blocks)
        writer.add_feed_forward_length(self.feed_forward)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head)
        writer.add_value_length(self.head)
        writer.add_rope_dimension_count(self.rotated or self.head)
        writer.add_layer_norm_rms_eps(1e-5)
        if self.family == "phi3":
            writer.add_sliding_window(200)
        known = add_sentence_pieces(writer)
        if self.llama3_scaling:
            writer.add_tensor("rope_freqs.weight", self.factors())
        for name, numbers in self.weights().items():
            module, _, kind = name.rpartition(".")
            own = numbers[:known] if module in {"model.embed_tokens", "lm_head"} else numbers
            if self.family == "llama" and module.endswith((".q_proj", ".k_proj")):
                own = own.reshape(-1, 2, self.head // 2, self.embedding).swapaxes(1, 2).reshape(own.shape)
            writer.add_tensor(f"{self._gguf_name(module)}.{kind}", np.ascontiguousarray(own))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def write_folder(self, path: Path, tokenizer: str, vocabulary: int) -> Path:
        """Of so many tokens, in two files with an index."""
        path.mkdir()
        config = {
            "model_type": self.family,
            "hidden_size": self.embedding,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "max_position_embeddings": 256,
            "vocab_size": vocabulary,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "partial_rotary_factor": (self.rotated or self.head) / self.head,
            "bos_token_id": 1,
            "eos_token_id": [4, 2],
        }
        if self.family == "phi3":
            config["sliding_window"] = 200
        if self.llama3_scaling:
            config["rope_scaling"] = {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        (path / "config.json").write_text(json.dumps(config))
        (path / "tokenizer.json").write_text(tokenizer)
        weights = self.weights()
        for name in {"model.embed_tokens.weight", "lm_head.weight"} & weights.keys():
            weights[name] = weights[name][:vocabulary]
        names = sorted(weights)
        parts = {
            "model-00001-of-00002.safetensors": names[::2],
            "model-00002-of-00002.safetensors": names[1::2],
        }
        for file, held in parts.items():
            write_safetensors(path / file, {name: weights[name] for name in held})
        index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        return path

    def _gguf_name(self, module: str) -> str:
        if module in _NAMES:
            return _NAMES[module]
        _, _, block, name = module.split(".", 3)
        return f"blk.{block}.{_BLOCK_NAMES[name]}"


def write_safetensors(path: Path, tensors: Weights, kind: str = "F32") -> None:
    header, data = {}, b""
    for name, numbers in tensors.items():
        raw = numbers.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": numbers.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
