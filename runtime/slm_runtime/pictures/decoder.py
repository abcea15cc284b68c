"""Asks the decoding process, and replaces it when it hangs or dies."""

import selectors
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

from slm_runtime.engine.protocol import MediumInvalid

SECONDS: Final = 10.0
"""A photograph takes a tenth of one; the process itself, which is started for the first, not much longer."""
_LENGTH_BYTES: Final = 4
_PART: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pixels:
    """Three bytes each, row by row."""

    width: int
    height: int
    data: bytes


class PictureDecoder:
    """One image at a time, whichever thread asks."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> Pixels:
        """Read an image.

        Raises
        ------
        MediumInvalid
        """
        with self._turn:
            try:
                answer = self._ask(data)
            except TimeoutError:
                self._end()
                raise MediumInvalid(f"it took longer than {self._seconds:g} s") from None
            except (EOFError, OSError):
                self._end()
                raise MediumInvalid("it ended the process that reads it") from None
        if answer[:1] != b"P":
            raise MediumInvalid(answer[1:].decode(errors="replace"))
        width, height = (int.from_bytes(answer[start : start + 4]) for start in (1, 5))
        return Pixels(width, height, answer[9:])

    def close(self) -> None:
        with self._turn:
            self._end()

    def _ask(self, data: bytes) -> bytes:
        process = self._running()
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        # The process reads a file whole before it begins with it.
        process.stdin.write(len(data).to_bytes(_LENGTH_BYTES) + data)
        process.stdin.flush()
        deadline = time.monotonic() + self._seconds
        return _read(process, int.from_bytes(_read(process, _LENGTH_BYTES, deadline)), deadline)

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slm_runtime.pictures.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _read(process: "subprocess.Popen[bytes]", length: int, deadline: float) -> bytes:
    assert process.stdout is not None  # noqa: S101
    parts: list[bytes] = []
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while length > 0:
            if not ready.select(deadline - time.monotonic()):
                raise TimeoutError
            part = process.stdout.read(min(length, _PART))
            if not part:
                raise EOFError
            parts.append(part)
            length -= len(part)
    return b"".join(parts)
