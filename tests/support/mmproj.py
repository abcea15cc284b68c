"""A tiny random projector (`mmproj`) as a real GGUF file, for the tiny model beside it; equal arguments give equal bytes."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGUFWriter

Kind = Literal["mlp", "gemma3", "idefics3", "qwen2vl_merger"]
"""Positions as tokens have them; all of an image seen by all of it; tiles with tokens between them; rows and columns."""

MARKS = (
    "\n\n",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_1_col_1>",
    "<start_of_image>",
    "<|vision_start|>",
)
"""Of those that projectors put around images and their tiles, some: a vocabulary may have them as tokens."""

SIDE, PATCH, WIDTH, BLOCKS, FEED_FORWARD, HIDDEN = 16, 4, 32, 2, 48, 64


def write_tiny_mmproj(
    path: Path,
    kind: Kind = "mlp",
    *,
    seed: int = 0,
    hidden: int = HIDDEN,
    blocks: int = BLOCKS,
    side: int = SIDE,
) -> Path:
    """Write some 100 KiB to `path` and return it. An image, or a tile of it, has `side` times `side` pixels."""
    random = np.random.default_rng(seed)

    def array(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)

    writer = GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": side,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "projection_dim": hidden,
        "block_count": blocks,
        "attention.head_count": 2,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    merge = 2
    tensors = {
        "v.patch_embd.weight": array(WIDTH, 3, PATCH, PATCH),
        "v.position_embd.weight": array((side // PATCH) ** 2, WIDTH),
        "v.post_ln.weight": np.ones(WIDTH, np.float32),
        "v.post_ln.bias": array(WIDTH),
    }
    for block in range(blocks):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors[f"v.blk.{block}.{name}.weight"] = array(WIDTH, WIDTH)
            tensors[f"v.blk.{block}.{name}.bias"] = array(WIDTH)
        for name in ("ln1", "ln2"):
            tensors[f"v.blk.{block}.{name}.weight"] = np.ones(WIDTH, np.float32)
            tensors[f"v.blk.{block}.{name}.bias"] = array(WIDTH)
        tensors[f"v.blk.{block}.ffn_up.weight"] = array(FEED_FORWARD, WIDTH)
        tensors[f"v.blk.{block}.ffn_up.bias"] = array(FEED_FORWARD)
        tensors[f"v.blk.{block}.ffn_down.weight"] = array(WIDTH, FEED_FORWARD)
        tensors[f"v.blk.{block}.ffn_down.bias"] = array(WIDTH)
    if kind == "mlp":
        tensors["mm.0.weight"], tensors["mm.0.bias"] = array(hidden, WIDTH), array(hidden)
        tensors["mm.2.weight"], tensors["mm.2.bias"] = array(hidden, hidden), array(hidden)
    elif kind == "gemma3":
        writer.add_uint32("clip.vision.projector.scale_factor", merge)
        tensors["mm.input_projection.weight"] = array(WIDTH, hidden)
        tensors["mm.soft_emb_norm.weight"] = np.ones(WIDTH, np.float32)
    elif kind == "idefics3":
        writer.add_uint32("clip.vision.projector.scale_factor", merge)
        writer.add_uint32("clip.vision.preproc_image_size", 2 * side)
        tensors["mm.model.fc.weight"] = array(hidden, WIDTH * merge**2)
    else:
        del tensors["v.position_embd.weight"]
        tensors["v.patch_embd.weight.1"] = array(WIDTH, 3, PATCH, PATCH)
        tensors["mm.0.weight"], tensors["mm.0.bias"] = array(hidden, WIDTH * merge**2), array(hidden)
        tensors["mm.2.weight"], tensors["mm.2.bias"] = array(hidden, hidden), array(hidden)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
