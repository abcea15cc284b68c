"""The API thread keeps off the CPU on which the step loop runs.

Linux wakes a thread where the one that woke it runs. The step loop wakes the API thread with each step, and then waits on
its own CPU until that one is through, and the engine's other threads wait for the loop.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

_PROCESSOR: Final = 36
"""Place of `processor` in /proc/PID/stat after the command's name; see proc(5)."""


class Apart:
    """Moves the thread that calls it. What this thread starts meanwhile inherits where it may run."""

    def __init__(self) -> None:
        self._everywhere = os.sched_getaffinity(0)
        self._now = self._everywhere

    def keep_off(self, pid: int) -> None:
        """Leave the CPU on which the main thread of that process is now, if there is another."""
        with contextlib.suppress(OSError):  # it has ended
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            self._run_on(self._everywhere - {int(stat.rpartition(b") ")[2].split()[_PROCESSOR])})

    def come_back(self) -> None:
        """Run on any CPU again."""
        self._run_on(self._everywhere)

    def _run_on(self, cpus: set[int]) -> None:
        if cpus and cpus != self._now:
            with contextlib.suppress(OSError):  # none of them may be used any more
                os.sched_setaffinity(0, cpus)
                self._now = cpus
