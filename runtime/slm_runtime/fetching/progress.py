"""How far a fetch is. Written by its threads, read by the operations port."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from slm_contract.report import Download, Failure, ModelFacts, RuntimeReport

SPEED_SECONDS: Final = 10.0
SAMPLE_SECONDS: Final = 0.5
LOG_SECONDS: Final = 5.0

State = Literal["Waiting", "Fetching", "Verifying", "Quantizing", "Complete", "Failed"]
_log = logging.getLogger("slm.fetch")


class Progress:
    """Thread-safe. What each file adds goes through its :class:`Share`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._state: State = "Waiting"
        self._done = 0
        self._total: int | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._logged = -LOG_SECONDS
        self._failure: Failure | None = None
        self._model: ModelFacts | None = None

    def enter(self, state: State) -> None:
        """Go to another state, and say so."""
        with self._lock:
            changed, self._state = state != self._state, state
        if changed:
            self._log_now()

    def begin(self, done: int, total: int | None, state: State = "Fetching") -> None:
        """An attempt starts: `done` of all files' `total` bytes are there already."""
        with self._lock:
            self._done, self._total = done, total
            self._samples = deque([(self._clock(), done)])
        self.enter(state)

    def add(self, length: int) -> None:
        """So many bytes more have come; below zero: they were thrown away."""
        with self._lock:
            self._done += length
            self._failure = None
            if self._state == "Verifying" and length > 0:
                self._state = "Fetching"
            now = self._clock()
            if now - self._samples[-1][0] >= SAMPLE_SECONDS:
                self._samples.append((now, self._done))
                while now - self._samples[0][0] > SPEED_SECONDS:
                    self._samples.popleft()

    def fail(self, failure: Failure) -> None:
        """Show a failure until more bytes come."""
        with self._lock:
            self._failure = failure

    def stay(self, failure: Failure) -> None:
        """Show a failure for good: nothing is under way."""
        with self._lock:
            self._failure, self._done, self._total = failure, 0, None
        self.enter("Failed")

    def complete(self, model: ModelFacts) -> None:
        with self._lock:
            self._model, self._failure = model, None
            if self._total is None:
                self._done = self._total = model.size_bytes
        self.enter("Complete")

    @property
    def bytes_done(self) -> int:
        return self._done

    def download(self) -> Download:
        with self._lock:
            start, first = self._samples[0] if self._samples else (self._clock(), self._done)
            seconds = self._clock() - start
            moving = self._state in {"Fetching", "Quantizing"} and seconds > 0
            speed = max(0, self._done - first) / seconds if moving else None
            left = None if self._total is None else max(0, self._total - self._done)
            eta = left / speed if speed and left is not None else None
            return Download(
                state=self._state,
                bytes_done=self._done,
                bytes_total=self._total,
                bytes_per_second=None if speed is None else round(speed),
                eta_seconds=None if eta is None else round(eta, 1),
            )

    def report(self) -> RuntimeReport:
        download = self.download()
        phase: Literal["Fetching", "Failed"] = "Failed" if download.state == "Failed" else "Fetching"
        return RuntimeReport(
            command="fetch", phase=phase, model=self._model, download=download, failure=self._failure
        )

    def log(self) -> None:
        """Say how far it is, now and then."""
        if self._clock() - self._logged >= LOG_SECONDS:
            self._log_now()

    def _log_now(self) -> None:
        self._logged = self._clock()
        download = self.download()
        fields = download.model_dump(by_alias=True, exclude_none=True, exclude={"state"})
        _log.info(download.state, extra={"fields": fields})


class Share:
    """What one file has added to the progress, so that it can be taken back. Thread-safe."""

    def __init__(self, progress: Progress, done: int) -> None:
        """`done`: bytes that were there already."""
        self._progress = progress
        self._lock = threading.Lock()
        self._done = done
        self.log = progress.log

    def add(self, length: int) -> None:
        with self._lock:
            self._done += length
        self._progress.add(length)

    def forget(self) -> None:
        """All of it was thrown away."""
        with self._lock:
            done, self._done = self._done, 0
        self._progress.add(-done)
