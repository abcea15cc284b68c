"""What a process takes: time, CPU, and memory at its peak."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Measured:
    exit_code: int
    seconds: float
    cpu_seconds: float
    """Its children's too."""
    peak_rss_mib: float
    """Without its children."""


def measured(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Measured:
    """Run a command to its end, in a folder or here."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        # What the kernel tells of a process that ended begins with what its parent had.
        peak = _peak_kib(process.pid) or peak
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - started
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(process.returncode, seconds, used.ru_utime + used.ru_stime, peak / 1024)


def interpreter() -> Measured:
    """Of a Python that does nothing."""
    return measured([sys.executable, "-c", "import time; time.sleep(0.2)"])


def _peak_kib(pid: int) -> int:
    """The most that it has had in memory; 0 where it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
