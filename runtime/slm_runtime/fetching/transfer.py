"""Brings a payload onto the volume: ranges in parallel where the server knows ranges, else one stream."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from slm_runtime.errors import SourceInvalid, SourceUnreachable
from slm_runtime.fetching.part import Part
from slm_runtime.fetching.progress import Progress
from slm_runtime.models.sources.artifact import Blob

CONNECTIONS: Final = 4
CHECKPOINT_SECONDS: Final = 1.0


def transfer_ranges(blob: Blob, part: Part, progress: Progress, stop: threading.Event) -> None:
    """Transfer what is missing of the part. What has come stays, whatever happens.

    Parameters
    ----------
    stop
        Set: another file has failed, and this one is left as it is.

    Raises
    ------
    RuntimeFailure
        Of the first connection that failed; the others are stopped.
    OSError
        The volume can't take it.
    """
    missing = part.missing()
    if not missing:
        return
    blocks = _Blocks(missing)
    try:
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="range") as pool:
            workers = min(CONNECTIONS, len(missing))
            running = {pool.submit(_work, blob, part, blocks, progress) for _ in range(workers)}
            try:
                while running:
                    done, running = wait(running, CHECKPOINT_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    part.save()
                    progress.log()
                    if stop.is_set():
                        raise Stopped
            finally:
                blocks.stop()
    finally:
        part.save()


def transfer_stream(blob: Blob, path: Path, progress: Progress) -> None:
    """Transfer all of a payload from a server that knows no ranges.

    Raises
    ------
    RuntimeFailure
        It didn't come whole. It has to be begun anew.
    OSError
        The volume can't take it.
    """
    counted = _Counted(progress)
    try:
        _stream(blob, path, counted)
    except BaseException:
        progress.add(-counted.length)
        raise
    if blob.size is not None and counted.length < blob.size:
        progress.add(-counted.length)
        raise SourceUnreachable(f"{blob.where} was cut off after {counted.length:,} of {blob.size:,} bytes.")


class _Counted:
    """What one file has told of its progress, so that it can be taken back."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.length = 0

    def add(self, length: int) -> None:
        self.length += length
        self._progress.add(length)
        self._progress.log()


def _stream(blob: Blob, path: Path, counted: _Counted) -> None:
    with blob.read() as chunks, path.open("wb") as file:
        for chunk in chunks:
            counted.add(len(chunk))
            if blob.size is not None and counted.length > blob.size:
                raise SourceInvalid(
                    f"{blob.where} sends more than the {blob.size:,} bytes that it announces."
                )
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


class Stopped(Exception):
    """Another file has failed."""


class _Blocks:
    """Hands out blocks until all are taken, or somebody failed."""

    def __init__(self, indexes: list[int]) -> None:
        self._indexes = iter(indexes)
        self._lock = threading.Lock()
        self.stopped = False

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                index = None if self.stopped else next(self._indexes, None)
            if index is None:
                return
            yield index

    def stop(self) -> None:
        self.stopped = True


def _work(blob: Blob, part: Part, blocks: _Blocks, progress: Progress) -> None:
    for index in blocks:
        start, stop = part.bounds(index)
        with blob.read(start, stop) as chunks:
            for chunk in chunks:
                if len(chunk) > stop - part.bounds(index)[0]:
                    raise SourceInvalid(f"{blob.where} sends more than it was asked for.")
                part.write(index, chunk)
                progress.add(len(chunk))
                if blocks.stopped:
                    return
        reached, _ = part.bounds(index)
        if reached < stop:
            raise SourceUnreachable(f"{blob.where} was cut off at byte {reached:,} of {part.size:,}.")
