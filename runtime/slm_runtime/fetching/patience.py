"""How long to go on with a source that fails for the moment."""

import random
import time
from collections.abc import Callable
from typing import Final

from slm_runtime.errors import RuntimeFailure, SourceUnreachable

TRIES: Final = 5
SECONDS: Final = 60.0
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 15.0
PROGRESS_BYTES: Final = 1 << 20
"""So much more means that it goes forward: the count of failures starts again."""


class Patience:
    """A bounded number of tries within a bounded time, with jitter, each failure counted against them."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        tries: int = TRIES,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self._tries = tries
        self._first_wait = first_wait
        self._failed = 0
        self._since = 0.0
        self._bytes = 0

    def wait(self, failure: RuntimeFailure, bytes_done: int) -> None:
        """Wait before another try, or raise the failure where it is the last straw.

        A permanent failure is the last straw at once.
        """
        if failure.permanent:
            raise failure
        now = self._clock()
        if bytes_done - self._bytes >= PROGRESS_BYTES or self._failed == 0:
            self._failed, self._since = 0, now
        self._bytes = bytes_done
        self._failed += 1
        asked = failure.retry_after if isinstance(failure, SourceUnreachable) else None
        wait = min(self._first_wait * 2 ** (self._failed - 1), LONGEST_WAIT) * random.uniform(0.5, 1.5)  # noqa: S311
        wait = max(wait, asked or 0)
        if self._failed >= self._tries or now - self._since + wait > SECONDS:
            raise failure
        self._sleep(wait)
