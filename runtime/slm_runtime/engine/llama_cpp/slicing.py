"""A long native computation in slices: it goes on only while the thread that steps lets it.

Two computations at once would each wait for the other's threads at every barrier, so the one that may wait does. It stops
between two of its graph's operations, where the library asks a callback of ours. To be asked after each of them was
measured to cost nothing (a vision encoder of 384 numbers a patch and 256 patches: 54 ms of CPU with and without).
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp as native


class Sliced:
    """One computation at a time, on a thread of its own. `begin` and `work` belong to the thread that steps."""

    def __init__(self) -> None:
        self.callback: Any = native.ggml_backend_sched_eval_callback(self._between)
        """For the library, which calls it before each operation, and after it where that was asked for."""
        self._until = 0.0
        self._go = threading.Semaphore(0)
        self._rest = threading.Semaphore(0)
        self._running = False
        self._failure: BaseException | None = None

    @property
    def running(self) -> bool:
        return self._running

    def begin(self, compute: Callable[[], None]) -> None:
        """Have it ready to be worked on."""
        self._running, self._failure = True, None
        threading.Thread(target=self._run, args=(compute,), name="encoder", daemon=True).start()

    def work(self, seconds: float) -> None:
        """Carry it on for about so long, or to its end. Raises what it raised."""
        self._until = time.monotonic() + seconds
        self._go.release()
        self._rest.acquire()
        if self._failure is not None:
            raise self._failure

    def _run(self, compute: Callable[[], None]) -> None:
        self._go.acquire()
        try:
            compute()
        except Exception as error:  # it is the other thread's to tell
            self._failure = error
        self._running = False
        self._rest.release()

    def _between(self, _tensor: Any, asks: bool, _user: Any) -> bool:
        if not asks and self._running and time.monotonic() >= self._until:
            self._rest.release()
            self._go.acquire()
        return True
