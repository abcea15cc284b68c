"""Brings payloads onto the volume: ranges in parallel where the server knows ranges, else one stream."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from slm_runtime.errors import SourceInvalid, SourceUnreachable
from slm_runtime.fetching.part import Part
from slm_runtime.fetching.progress import Share
from slm_runtime.fetching.rate import Rate
from slm_runtime.models.sources.artifact import Blob

CONNECTIONS: Final = 8
CONNECTION_BYTES_PER_SECOND: Final = 1 << 20
"""Where the rate is limited: a connection that gets less would only be cut off by its server."""
CHECKPOINT_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.05
_Result = TypeVar("_Result")


class Stopped(Exception):
    """Another file has failed, and this one was left as it is."""


class Transfer:
    """What all files of one attempt share: the connections, their rate, and the end.

    A file's blocks come in order and the files' blocks one after the other, so that the first is whole first.
    """

    def __init__(self, bytes_per_second: int | None = None, connections: int = CONNECTIONS) -> None:
        self._stopped = threading.Event()
        self._rate = Rate(bytes_per_second, wait=self._stopped.wait)
        self.connections = connections
        if bytes_per_second is not None:
            self.connections = min(max(1, bytes_per_second // CONNECTION_BYTES_PER_SECOND), connections)
        self._pool = ThreadPoolExecutor(self.connections, thread_name_prefix="connection")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._pool.shutdown()

    def stop(self) -> None:
        """Leave everything as it is."""
        self._stopped.set()

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Do something else that takes one of the connections."""
        return self._pool.submit(work).result()

    def ranges(self, blob: Blob, part: Part, share: Share, follow: Callable[[int], bool]) -> None:
        """Transfer what is missing of the part. What has come stays, whatever happens.

        Parameters
        ----------
        follow
            Called now and then with the bytes that have come without a gap; answers whether it wants to be soon again.

        Raises
        ------
        RuntimeFailure
            Of the first connection that failed; the others are stopped.
        OSError
            The volume can't take it.
        Stopped
        """
        missing = part.missing()
        blocks = _Blocks(missing, self._stopped)
        workers = min(self.connections, len(missing))
        running = {self._pool.submit(self._work, blob, part, share, blocks) for _ in range(workers)}
        try:
            self._watch(running, part, share, follow)
        except BaseException:
            blocks.stop()
            wait([each for each in running if not each.cancel()])
            # What failed counts, not that the record of what has come couldn't be written either.
            with contextlib.suppress(OSError):
                part.save()
            raise
        if part.missing():
            part.save()
            raise Stopped

    def stream(self, blob: Blob, path: Path, share: Share) -> str:
        """Transfer all of a payload from a server that knows no ranges; return its sha256.

        Raises
        ------
        RuntimeFailure
            It didn't come whole. It has to be begun anew.
        OSError
            The volume can't take it.
        Stopped
        """
        return self.run(lambda: self._stream(blob, path, share))

    def _watch(
        self, running: "set[Future[None]]", part: Part, share: Share, follow: Callable[[int], bool]
    ) -> None:
        behind, saved = False, time.monotonic()
        while running:
            done, left = wait(running, 0 if behind else LOOK_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            running.intersection_update(left)
            behind = follow(part.prefix)
            if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                part.save()
                saved = time.monotonic()
            share.log()

    def _work(self, blob: Blob, part: Part, share: Share, blocks: "_Blocks") -> None:
        for index in blocks:
            reached, stop = part.bounds(index)
            with blob.read(reached, stop) as chunks:
                for chunk in chunks:
                    reached += len(chunk)
                    if reached > stop:
                        raise SourceInvalid(f"{blob.where} sends more than it was asked for.")
                    part.write(index, chunk)
                    share.add(len(chunk))
                    self._rate.take(len(chunk))
                    if blocks.stopped:
                        return
            if reached < stop:
                raise SourceUnreachable(f"{blob.where} was cut off at byte {reached:,} of {part.size:,}.")

    def _stream(self, blob: Blob, path: Path, share: Share) -> str:
        digest, length = hashlib.sha256(), 0
        if self._stopped.is_set():
            raise Stopped
        with blob.read() as chunks, path.open("wb") as file:
            for chunk in chunks:
                length += len(chunk)
                if blob.size is not None and length > blob.size:
                    raise SourceInvalid(
                        f"{blob.where} sends more than the {blob.size:,} bytes that it announces."
                    )
                file.write(chunk)
                digest.update(chunk)
                share.add(len(chunk))
                share.log()
                self._rate.take(len(chunk))
                if self._stopped.is_set():
                    raise Stopped
        if blob.size is not None and length < blob.size:
            raise SourceUnreachable(f"{blob.where} was cut off after {length:,} of {blob.size:,} bytes.")
        return digest.hexdigest()


class _Blocks:
    """Hands out blocks until all are taken, or somebody failed."""

    def __init__(self, indexes: list[int], stopped: threading.Event) -> None:
        self._indexes = iter(indexes)
        self._lock = threading.Lock()
        self._failed = False
        self._stopped = stopped

    @property
    def stopped(self) -> bool:
        return self._failed or self._stopped.is_set()

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                index = None if self.stopped else next(self._indexes, None)
            if index is None:
                return
            yield index

    def stop(self) -> None:
        self._failed = True
