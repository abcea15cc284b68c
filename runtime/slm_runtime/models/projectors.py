"""From the header of a multimodal projector (`mmproj`) to what it reads, which model it is for, and what memory it takes.

A projector is a vision encoder and what makes its output a model's input. llama.cpp calls its architecture `clip`.
"""

import math
from collections.abc import Mapping
from typing import Final

from slm_contract.report import ProjectorFacts
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture
from slm_runtime.models.metadata import MAX_NUMBER, Metadata
from slm_runtime.models.shards import Headers

ARCHITECTURES: Final = {"clip", "mmproj"}
MAX_SIDE: Final = 8192
"""Pixels; what llama.cpp takes."""
_LARGEST_SIDE: Final = 65_536

_LLAVA: Final = frozenset({"adapter", "ldp", "ldpv2", "mlp", "mlp_norm"})
_SIGLIP: Final = frozenset({"gemma3", "idefics3", "janus_pro", "lfm2", "phi4"})
_OUTPUTS: Final[Mapping[str, tuple[str, int]]] = {
    "cogvlm": ("mm.down.weight", 1),
    "deepseekocr": ("mm.model.fc.weight", 1),
    "deepseekocr2": ("mm.model.fc.weight", 1),
    "dots_ocr": ("mm.2.weight", 1),
    "exaone4_5": ("mm.2.bias", 0),
    "gemma3": ("mm.input_projection.weight", 0),
    "gemma3nv": ("mm.input_projection.weight", 0),
    "gemma4uv": ("mm.input_projection.weight", 1),
    "gemma4v": ("mm.input_projection.weight", 1),
    "glm4v": ("mm.down.weight", 1),
    "glm5v": ("mm.down.weight", 1),
    "hunyuanvl": ("mm.model.fc.weight", 1),
    "idefics3": ("mm.model.fc.weight", 1),
    "internvl": ("mm.model.mlp.3.weight", 1),
    "janus_pro": ("mm.1.bias", 0),
    "kimik25": ("mm.2.weight", 1),
    "kimivl": ("mm.2.weight", 1),
    "ldpv2": ("mm.model.peg.0.bias", 0),
    "lfm2": ("mm.2.weight", 1),
    "lightonocr": ("mm.2.weight", 1),
    "ling3vl": ("mm.2.bias", 0),
    "llama4": ("mm.model.fc.weight", 1),
    "minicpmv4_6": ("mm.down.weight", 1),
    "mlp": ("mm.2.weight", 1),
    "nemotron_v2_vl": ("mm.model.mlp.3.weight", 1),
    "paddleocr": ("mm.2.weight", 1),
    "phi4": ("mm.2.weight", 1),
    "pixtral": ("mm.2.weight", 1),
    "qwen2.5vl_merger": ("mm.2.bias", 0),
    "qwen2vl_merger": ("mm.2.bias", 0),
    "qwen3vl_merger": ("mm.2.bias", 0),
    "resampler": ("resampler.proj.weight", 0),
    "step3vl": ("mm.model.fc.weight", 1),
    "yasa2": ("mm.2.weight", 1),
    "youtuvl": ("mm.2.bias", 0),
}
"""The tensor, and its dimension, that has the embedding length of the model; of others llama.cpp alone knows."""
_TOKENS: Final[Mapping[str, int]] = {
    "gemma4uv": 1120,
    "gemma4v": 1120,
    "glm4v": 4096,
    "hunyuanvl": 16_384,
    "kimik25": 4096,
    "kimivl": 1024,
    "lfm2": 256,
    "ling3vl": 4096,
    "minimax_m3": 576,
    "muse-glimmer": 4096,
    "pixtral": 1024,
    "qwen2.5vl_merger": 4096,
    "qwen2vl_merger": 4096,
    "qwen3vl_merger": 4096,
}
"""Tokens that llama.cpp lets the largest picture have, where it is encoded in its own shape."""
_MERGES: Final[Mapping[str, int]] = {"gemma4uv": 3, "gemma4v": 3, "pixtral": 1}
"""Patches of a side that become a token, where the file doesn't say; else two."""


def projector_facts(headers: Headers) -> ProjectorFacts:
    """Read what tells a projector.

    Raises
    ------
    InvalidModel
        It is damaged.
    UnsupportedArchitecture
        It reads no pictures.
    """
    metadata = Metadata(headers.first)
    if not metadata.flag("clip.has_vision_encoder", default=False):
        raise UnsupportedArchitecture(
            "The projector has no encoder of pictures: sound isn't read here.",
            "Name a projector of pictures in spec.model.projector.source, or leave spec.model.projector out.",
        )
    kind = metadata.text("clip.vision.projector_type") or metadata.text("clip.projector_type")
    if not kind or not kind.isprintable() or len(kind) > 64:
        raise InvalidModel("The projector doesn't name its clip.projector_type.")
    image, patch = metadata.number("clip.vision.image_size"), metadata.number("clip.vision.patch_size")
    if not 1 <= image <= MAX_SIDE or not 1 <= patch <= MAX_SIDE:
        raise InvalidModel(f"The projector's pictures of {image} pixels in patches of {patch} can't be read.")
    side = _largest_side(metadata, kind, image, patch)
    output = _output(headers, kind)
    elements = _compute(metadata, headers, kind, side, patch, output or 0)
    if elements >= MAX_NUMBER**2:
        raise InvalidModel("The projector needs more than any memory holds: its header is damaged.")
    return ProjectorFacts(
        kind=kind, output_length=output, image_size=side, patch_size=patch, compute_elements=elements
    )


def _largest_side(metadata: Metadata, kind: str, image: int, patch: int) -> int:
    """Pixels of the side of the largest square that is encoded at once, in whole tokens."""
    merge = max(
        metadata.number("clip.vision.projector.scale_factor", 0),
        metadata.number("clip.vision.spatial_merge_size", 0),
    ) or _MERGES.get(kind, 2)
    token = patch * merge
    tokens = _TOKENS.get(kind)
    pixels = metadata.number("clip.vision.image_max_pixels", 0) or (tokens * token**2 if tokens else 0)
    if not pixels:
        return image
    return min(max(math.isqrt(pixels) // token, 1) * token, _LARGEST_SIDE)


def _output(headers: Headers, kind: str) -> int | None:
    name, dimension = _OUTPUTS.get(kind, ("", 0))
    shapes = (each.shape for each in headers.tensors if each.name == name)
    return next((shape[dimension] for shape in shapes if len(shape) > dimension), None)


def _compute(metadata: Metadata, headers: Headers, kind: str, side: int, patch: int, output: int) -> int:
    """What exists at once in the widest moment, as llama.cpp's graphs of these kinds lay it out, with flash attention.

    That is in a block's attention, in its feed-forward part, or in the projection; some keep the picture itself beside it.
    """
    wide = metadata.number("clip.vision.embedding_length")
    inner = metadata.number("clip.vision.feed_forward_length", 0) or 4 * wide
    gated = any(each.name.startswith("v.blk.0.ffn_gate") for each in headers.tensors)
    inner *= 3 if gated else 1
    patches, picture = (side // patch) ** 2, 3 * side**2
    if kind in _SIGLIP:
        return patches * max(5 * wide, 3 * wide + inner)
    if kind in _LLAVA:
        return (patches + 1) * max(6 * wide, 4 * wide + inner, wide + 2 * output) + picture
    return patches * max(5 * wide, 2 * wide + inner) + picture
