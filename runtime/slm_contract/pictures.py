"""What pictures take of memory, beside the buffer that one is encoded in."""

from typing import Final

ENCODED_BYTES: Final = 32 << 20
"""Of what was encoded and is kept; the latest stays, whatever its size."""
PIXEL_BYTES: Final = 24 << 20
"""Of pictures that were read and are yet to be encoded; the others are read once more."""
DECODER_BYTES: Final = 80 << 20
"""Of the process that decodes: 30 MiB of its own, and the pixels of the largest picture."""
ROOM: Final = ENCODED_BYTES + PIXEL_BYTES + DECODER_BYTES
