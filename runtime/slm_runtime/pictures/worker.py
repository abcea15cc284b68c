"""The process that decodes: files come on stdin, pixels go to stdout, each as a frame with its length ahead.

An answer's first byte says what follows: `P` a width and a height of four bytes each and the pixels, three bytes each, row
by row; `E` a sentence. It ends when its stdin does, so it never outlives the engine.
"""

import io
import resource
import struct
import sys
import warnings
from typing import BinaryIO, Final

from PIL import Image, ImageOps, UnidentifiedImageError

MEMORY_BYTES: Final = 640 * 1024 * 1024
"""Address space of this process. Python and its libraries take some 100 MiB of it."""
PIXELS: Final = 16_000_000
"""Of an image as it is decoded. JPEG is decoded to a half, a quarter or an eighth of its size where that is enough."""
JPEG_PIXELS: Final = 120_000_000
LONGEST_SIDE: Final = 2048
"""Of what is handed on; no small model looks at more."""
SHORTEST_SIDE: Final = 4
LONGEST_SHAPE: Final = 100
"""Times that the longer side may be as long as the shorter one: models divide an image by its sides."""
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
LENGTH: Final = struct.Struct("!I")
SIZE: Final = struct.Struct("!II")


class Unreadable(Exception):
    """Nothing that a model could look at."""


def decode(data: bytes) -> Image.Image:
    """Read a file's first frame as it is meant to be seen, in colours on white, and no larger than need be.

    Raises
    ------
    Unreadable
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(*image.size, JPEG_PIXELS if image.format == "JPEG" else PIXELS)
            image.draft(None, (LONGEST_SIDE, LONGEST_SIDE))
            _check(*image.size, PIXELS)
            image.load()
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            return _on_white(upright)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"it is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # of a broken file, any decoder may raise anything
        raise Unreadable(f"it is broken ({type(error).__name__}: {str(error)[:200]})") from None


def _check(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise Unreadable(
            f"it has {width} x {height} pixels, and at most {most // 1_000_000} million are read"
        )
    if min(width, height) < SHORTEST_SIDE or max(width, height) > LONGEST_SHAPE * min(width, height):
        raise Unreadable(
            f"it has {width} x {height} pixels: each side must have {SHORTEST_SIDE} at least, and the longer one at most "
            f"{LONGEST_SHAPE} times as many as the other"
        )


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def answer(data: bytes) -> bytes:
    try:
        image = decode(data)
    except Unreadable as error:
        return b"E" + str(error).encode(errors="replace")
    return b"P" + SIZE.pack(*image.size) + image.tobytes()


def serve(files: BinaryIO, answers: BinaryIO) -> None:
    while head := files.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        body = answer(files.read(length))
        answers.write(LENGTH.pack(len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")  # of damaged metadata: the pixels are what counts
    serve(sys.stdin.buffer, sys.stdout.buffer)
