"""llama.cpp's quantizer, in a process of its own: what becomes of that is a typed error here."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from slm_contract.base import ContractModel
from slm_contract.config import Quantization
from slm_runtime.engine.cpus import available_cpus
from slm_runtime.errors import OutOfSpace, QuantizationFailed, QuantizerKilled
from slm_runtime.models.quantization import FILE_TYPE

POLL_SECONDS: Final = 0.25
STALL_SECONDS: Final = 600.0
"""Without a byte more, after which it is ended: it writes several a second on the slowest machine."""
FULL: Final = 1 << 20
"""A volume with fewer bytes left is full: the library doesn't say why it couldn't write."""
COMMAND: Final = (sys.executable, "-m", "slm_runtime.fetching.quantizer")


class _Said(ContractModel):
    weights: int | None = None
    error: str | None = None


class Quantizer:
    def __init__(self, command: Sequence[str] = COMMAND, *, stall_seconds: float = STALL_SECONDS) -> None:
        """`command`: another process, in tests."""
        self._command = command
        self._stall_seconds = stall_seconds

    def weigh(self, source: Path, wanted: Quantization) -> int:
        """How many bytes the derived weights will have, by the header alone: what follows it in the file isn't read.

        Raises
        ------
        QuantizationFailed
        """
        said = self._run(source, None, wanted, requantize=True, grown=lambda _: None)
        if said.weights is None:
            raise QuantizationFailed(
                f"llama.cpp doesn't say how large {source.name} would be as {wanted.value}."
            )
        return said.weights

    def quantize(
        self,
        source: Path,
        target: Path,
        wanted: Quantization,
        *,
        requantize: bool,
        grown: Callable[[int], None],
    ) -> None:
        """Write the derived file.

        Parameters
        ----------
        source
            Of several shards the first; the others lie beside it.
        requantize
            Whether the source's numbers may be quantized ones.
        grown
            Told by how many bytes the target has grown, now and then.

        Raises
        ------
        QuantizationFailed
        OutOfSpace
        """
        self._run(source, target, wanted, requantize=requantize, grown=grown)

    def _run(
        self,
        source: Path,
        target: Path | None,
        wanted: Quantization,
        *,
        requantize: bool,
        grown: Callable[[int], None],
    ) -> _Said:
        what = f"{wanted.value} of {source.name}"
        arguments = (
            str(source),
            "-" if target is None else str(target),
            str(FILE_TYPE[wanted.value]),
            str(available_cpus()),
            "1" if requantize else "0",
        )
        theirs, ours = os.pipe()
        try:
            with subprocess.Popen(
                (*self._command, *arguments), stdin=theirs, stdout=subprocess.PIPE
            ) as process:
                try:
                    text = self._watch(process, target, what, grown)
                except BaseException:
                    process.kill()
                    raise
        finally:
            os.close(theirs)
            os.close(ours)
        try:
            said = _Said.model_validate_json(text)
        except ValidationError:
            said = _Said()
        if process.returncode:
            raise _failure(process.returncode, said.error, target, what)
        return said

    def _watch(
        self, process: "subprocess.Popen[bytes]", target: Path | None, what: str, grown: Callable[[int], None]
    ) -> bytes:
        """Until it has ended; what it said."""
        size, since, text = 0, time.monotonic(), None
        while text is None:
            try:
                text, _ = process.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() - since > self._stall_seconds:
                    raise QuantizationFailed(
                        f"llama.cpp stopped making {what}, after {size:,} bytes of it."
                    ) from None
            now = _size(target)
            if now != size:
                grown(now - size)
                size, since = now, time.monotonic()
        return text


def _size(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_size
    except FileNotFoundError:
        return 0


def _failure(code: int, error: str | None, target: Path | None, what: str) -> QuantizationFailed | OutOfSpace:
    if code == -signal.SIGKILL:
        return QuantizerKilled(f"The process that made {what} was killed, as a rule for want of memory.")
    if code < 0:
        return QuantizationFailed(
            f"llama.cpp crashed with {signal.Signals(-code).name} when it made {what}: the file is damaged or malicious."
        )
    if target is not None and _free(target.parent) < FULL:
        return OutOfSpace(f"The volume of {target.parent} is full: there is no room for {what}.")
    return QuantizationFailed(f"llama.cpp can't make {what}: {error or f'its process ended with {code}'}.")


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
