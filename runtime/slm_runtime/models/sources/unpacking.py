"""Streams that are compressed, in plain: piece by piece, within bounds of memory and of what may come of them."""

import zlib
from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol

from backports import zstd

from slm_runtime.errors import SourceInvalid

Packing = Literal["gzip", "zstd"]

OUTPUT: Final = 1 << 20
MAX_WINDOW_LOG: Final = 23
"""8 MiB, which every reader of zstd should have; what is packed for more says so by `--long` or `--ultra`."""
MAX_RATIO: Final = 100
"""Models hardly become smaller when they are compressed; what becomes so much larger again is a bomb."""
ALLOWANCE: Final = 1 << 30
"""Bytes that may be more: zeros in a layer with other things."""


class _Part(Protocol):
    """One gzip member or zstd frame: some tools begin one for each file."""

    @property
    def eof(self) -> bool: ...

    @property
    def rest(self) -> bytes | None:
        """What to go on with, behind its end too; None: with more than there was."""

    def decompress(self, data: bytes, /) -> bytes:
        """At most OUTPUT bytes."""


def unpacked(chunks: Iterator[bytes], packing: Packing, where: str) -> Iterator[bytes]:
    """Decompress a stream of one part or several.

    Raises
    ------
    SourceInvalid
        It is damaged or cut off, or becomes too large.
    """
    begin: Callable[[], _Part] = _Member if packing == "gzip" else _Frame
    part = begin()
    packed = plain = 0
    for chunk in chunks:
        packed += len(chunk)
        rest: bytes | None = chunk
        while rest is not None:
            if part.eof:
                part = begin()
            try:
                output = part.decompress(rest)
            except (zlib.error, zstd.ZstdError) as error:
                raise SourceInvalid(f"{where} is damaged: {error}.") from error
            rest = part.rest
            plain += len(output)
            if plain > MAX_RATIO * packed + ALLOWANCE:
                raise SourceInvalid(
                    f"{where} becomes more than {MAX_RATIO} times as large when it is unpacked."
                )
            if output:
                yield output
    if not part.eof:
        raise SourceInvalid(f"{where} is damaged: it ends too early.")


class _Member:
    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def rest(self) -> bytes | None:
        return (self._inflater.unused_data if self.eof else self._inflater.unconsumed_tail) or None

    def decompress(self, data: bytes) -> bytes:
        return self._inflater.decompress(data, OUTPUT)


class _Frame:
    """The library keeps what it was given and had no room to put out."""

    def __init__(self) -> None:
        self._decompressor = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        )

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def rest(self) -> bytes | None:
        if self.eof:
            return self._decompressor.unused_data or None
        return None if self._decompressor.needs_input else b""

    def decompress(self, data: bytes) -> bytes:
        return self._decompressor.decompress(data, OUTPUT)
