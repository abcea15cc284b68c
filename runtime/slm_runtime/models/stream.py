"""A file's bytes from its start, in one direction: for headers that are read while they come."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from slm_runtime.errors import InvalidModel


class ByteStream(ABC):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = memoryview(b"")
        self._at = 0

    @abstractmethod
    def _cut_off(self) -> InvalidModel:
        """What to raise where the file ends too early."""

    def _take(self, length: int) -> bytes:
        if length <= len(self._buffer):
            taken = bytes(self._buffer[:length])
            self._buffer = self._buffer[length:]
        else:
            parts = bytearray()
            while len(parts) < length:
                self._fill()
                part = self._buffer[: length - len(parts)]
                parts += part
                self._buffer = self._buffer[len(part) :]
            taken = bytes(parts)
        self._at += length
        return taken

    def _skip(self, length: int) -> None:
        self._at += length
        while length > len(self._buffer):
            length -= len(self._buffer)
            self._buffer = memoryview(b"")
            self._fill()
        self._buffer = self._buffer[length:]

    def _fill(self) -> None:
        """Have at least one byte in the buffer."""
        while not self._buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise self._cut_off()
            self._buffer = memoryview(chunk)
