"""A projector of random weights as a real GGUF file: llama.cpp loads it, and equal arguments give equal bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from gguf import GGUFWriter, LlamaFileType

_Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

KINDS: Final = ("mlp", "idefics3", "gemma3", "qwen2vl_merger")
"""Positions as tokens have them; tiles with tokens between them; all of an image seen by all of it; rows and columns."""

MARKS: Final = (
    "\n\n",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_1_col_1>",
    "<start_of_image>",
    "<|vision_start|>",
)
"""Of those that projectors put around images and their tiles, some: a vocabulary may have them as tokens."""


@dataclass(frozen=True)
class TinyProjector:
    """A vision encoder of that shape, and what makes its output a model's input; small enough for the tiny model."""

    kind: str = "mlp"
    output: int = 64
    """The embedding length of the model that it is for."""
    embedding: int = 32
    feed_forward: int = 64
    heads: int = 2
    blocks: int = 2
    image_size: int = 28
    patch_size: int = 14
    merge: int = 2
    """Patches of a side that become one token, where its kind merges some."""
    seed: int = 0

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    def write(self, path: Path) -> Path:
        writer = GGUFWriter(path, "clip")
        writer.add_type("mmproj")
        writer.add_file_type(LlamaFileType.ALL_F32)
        writer.add_clip_has_vision_encoder(True)
        writer.add_clip_projector_type(self.kind)
        writer.add_bool("clip.use_gelu", True)
        vision = {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "embedding_length": self.embedding,
            "feed_forward_length": self.feed_forward,
            "projection_dim": self.output,
            "block_count": self.blocks,
            "attention.head_count": self.heads,
            "projector.scale_factor": self.merge,
        }
        if self.kind == "idefics3":
            vision["preproc_image_size"] = 2 * self.image_size
        for name, value in vision.items():
            writer.add_uint32(f"clip.vision.{name}", value)
        writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
        writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        for name, tensor in self._tensors().items():
            writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _tensors(self) -> Mapping[str, _Array]:
        random = np.random.default_rng(self.seed)
        wide, inner = self.embedding, self.feed_forward

        def weights(*shape: int) -> _Array:
            return random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))

        def zeros(length: int) -> _Array:
            return np.zeros(length, np.float32)

        found = {"v.patch_embd.weight": weights(wide, 3, self.patch_size, self.patch_size)}
        positions = self.patches + (self.kind == "mlp")
        if self.kind == "mlp":
            found |= {
                "v.class_embd": weights(wide),
                "v.pre_ln.weight": zeros(wide) + 1,
                "v.pre_ln.bias": zeros(wide),
            }
        if self.kind == "qwen2vl_merger":
            found |= {"v.patch_embd.weight.1": weights(wide, 3, self.patch_size, self.patch_size)}
        else:
            found |= {"v.position_embd.weight": weights(positions, wide)}
        for block in range(self.blocks):
            prefix = f"v.blk.{block}"
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                found |= {
                    f"{prefix}.{name}.weight": weights(wide, wide),
                    f"{prefix}.{name}.bias": zeros(wide),
                }
            for name in ("ln1", "ln2"):
                found |= {f"{prefix}.{name}.weight": zeros(wide) + 1, f"{prefix}.{name}.bias": zeros(wide)}
            found |= {
                f"{prefix}.ffn_up.weight": weights(inner, wide),
                f"{prefix}.ffn_up.bias": zeros(inner),
                f"{prefix}.ffn_down.weight": weights(wide, inner),
                f"{prefix}.ffn_down.bias": zeros(wide),
            }
        if self.kind != "mlp":
            found |= {"v.post_ln.weight": zeros(wide) + 1, "v.post_ln.bias": zeros(wide)}
        merged = wide * self.merge**2
        match self.kind:
            case "idefics3":
                return found | {"mm.model.fc.weight": weights(self.output, merged)}
            case "gemma3":
                return found | {
                    "mm.input_projection.weight": weights(wide, self.output),
                    "mm.soft_emb_norm.weight": zeros(wide) + 1,
                }
            case "qwen2vl_merger":
                first = weights(self.output, merged)
            case _:
                first = weights(self.output, wide)
        return found | {
            "mm.0.weight": first,
            "mm.0.bias": zeros(self.output),
            "mm.2.weight": weights(self.output, self.output),
            "mm.2.bias": zeros(self.output),
        }
