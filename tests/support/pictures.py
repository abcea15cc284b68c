"""Pictures of random pixels, as files: equal arguments give equal bytes."""

import io

import numpy as np
from PIL import Image


def picture(seed: int = 0, *, width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()
