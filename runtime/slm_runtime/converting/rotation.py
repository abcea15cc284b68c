"""How far positions turn queries and keys, as files tell it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from slm_runtime.converting.dequantizing import Floats
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture

REMEDY = "Use the model as GGUF with the llama.cpp engine."


def frequencies(base: float, length: int) -> Floats:
    """Radians from a position to the next, for each pair of `length` numbers."""
    exponents = np.arange(0, length, 2, dtype=np.float32) / np.float32(length)
    turned: Floats = (1.0 / np.float32(base) ** exponents).astype(np.float32)
    return turned


def scaled(turned: Floats, scaling: Mapping[str, Any], context: int) -> tuple[Floats, float, int]:
    """Apply a Hugging Face configuration's scaling; also what rotated numbers are multiplied by, and the context left.

    Raises
    ------
    UnsupportedArchitecture
    InvalidModel
    """
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    try:
        if kind == "default":
            return turned, 1.0, context
        if kind == "linear":
            return turned / np.float32(scaling["factor"]), 1.0, context
        if kind == "llama3":
            return _llama3(turned, scaling), 1.0, context
        if kind == "longrope":
            return _longrope(turned, scaling, context)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InvalidModel(
            f"config.json's scaling of positions, {kind}, can't be read: {error!r}.",
            "Correct config.json, or take it anew from where the model comes from.",
        ) from error
    raise UnsupportedArchitecture(
        f"The model scales its positions by {kind!r}, which isn't exported.", REMEDY
    )


def _llama3(turned: Floats, scaling: Mapping[str, Any]) -> Floats:
    """Short waves as they are, long ones slowed, those between by how long they are."""
    factor, trained = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    waves = 2 * math.pi / turned
    smooth = np.clip((trained / waves - low) / (high - low), 0, 1)
    slowed: Floats = ((1 - smooth) * turned / factor + smooth * turned).astype(np.float32)
    return slowed


def _longrope(turned: Floats, scaling: Mapping[str, Any], context: int) -> tuple[Floats, float, int]:
    """The factors of short texts, and only these: within one graph a position can't depend on how long a text gets."""
    trained = int(scaling["original_max_position_embeddings"])
    factors = np.array(scaling["short_factor"], np.float32)
    stretch = context / trained
    scale = scaling.get("attention_factor") or (
        math.sqrt(1 + math.log(stretch) / math.log(trained)) if stretch > 1 else 1.0
    )
    return turned / factors, float(scale), min(context, trained)
