"""How fast a fetch may be."""

import threading
import time
from collections.abc import Callable
from typing import Final

BURST_SECONDS: Final = 0.25
"""What wasn't taken in so long may be taken at once."""


class Rate:
    """So many bytes a second, over all threads that take of them."""

    def __init__(
        self,
        bytes_per_second: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`bytes_per_second`: None where there is no limit."""
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._taken_until = clock()

    def take(self, length: int) -> None:
        """Wait until so many bytes that have come were due."""
        if self._bytes_per_second is None:
            return
        with self._lock:
            now = self._clock()
            self._taken_until = max(self._taken_until, now - BURST_SECONDS) + length / self._bytes_per_second
            ahead = self._taken_until - now
        if ahead > 0:
            self._wait(ahead)
