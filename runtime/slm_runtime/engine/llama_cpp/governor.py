"""How many threads to compute with: as many as really run.

The threads of a step meet at hundreds of barriers, and spin while they wait there. Where another process takes a core
for a time slice, all of them wait for the one that lost it, at each barrier anew: on two busy cores, two threads were
measured ten times slower than one. How long our threads wait for a CPU is known from the kernel's own account.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

_WINDOW: Final = 0.25
"""Seconds between two looks."""
_CROWDED: Final = 0.15
"""Share of the time that a thread waits for a CPU from which on one thread less is faster."""
_FIRST_RETRY: Final = 2.0
_LAST_RETRY: Final = 60.0
"""Seconds until one more thread is tried again; doubled each time that it was one too many."""


def waited_seconds(tasks: Path = Path("/proc/self/task")) -> float:
    """Seconds that this process's threads were ready to run and no CPU was free, all together."""
    total = 0
    for task in tasks.iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue  # the thread has just ended, or the kernel keeps no account
    return total / 1e9


class ThreadGovernor:
    """Tell it of each step; it says how many threads the next one should have."""

    def __init__(self, most: int, now: float, waited: Callable[[], float] = waited_seconds) -> None:
        self.threads = most
        self._most = most
        self._waited = waited
        self._looked = now
        self._waited_then = waited()
        self._retry = _FIRST_RETRY
        self._changed = now

    def stepped(self, began: float, ended: float) -> int:
        """A step ran from `began` to `ended`. Time between steps doesn't count: nobody had anything to do."""
        if self._most == 1:
            return 1
        self._looked = max(self._looked, began - _WINDOW)
        if ended - self._looked < _WINDOW:
            return self.threads
        waited = self._waited()
        share = (waited - self._waited_then) / ((ended - self._looked) * self.threads)
        self._looked, self._waited_then = ended, waited
        if share > _CROWDED:
            if self.threads > 1:
                tried = self.threads
                self.threads = max(1, min(tried - 1, round(tried * (1 - share))))
                self._changed = ended
                self._retry = min(2 * self._retry, _LAST_RETRY)
        elif self.threads < self._most and ended - self._changed >= self._retry:
            self.threads += 1
            self._changed = ended
        elif self.threads == self._most and ended - self._changed >= self._retry:
            self._retry = _FIRST_RETRY
        return self.threads
