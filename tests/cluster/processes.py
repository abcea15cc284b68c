"""Long-running programs: started with a log file, watched while they come up, ended for certain.

A process is known by its pid *and* its start time, so that what is ended later
is never a stranger that got the same pid.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import tail
from tests.cluster.errors import HarnessError

STOP_SECONDS = 10.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Identity:
    """One process of this machine, for as long as it lives."""

    pid: int
    started: int
    """Clock ticks between the machine's start and the process's."""

    @staticmethod
    def of(pid: int) -> "Identity | None":
        """The process that now has *pid*; None where there is none, or a dead one not yet buried."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {"Z", "X"} else Identity(pid, int(fields[19]))

    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def end(self) -> None:
        """Ask it to stop, then make it, and return when it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive():
                return
            os.kill(self.pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while self.alive() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        if self.alive():
            raise HarnessError(f"process {self.pid} can't be ended")


_outliving: list[subprocess.Popen[bytes]] = []
"""Children that may go on after this process; held, or Python would report each as forgotten."""


def bury() -> None:
    """Take leave of the children that have ended, so that none stays as a zombie."""
    _outliving[:] = [child for child in _outliving if child.poll() is None]


class Process:
    """A program of the harness that runs until it is stopped."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._child = child

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        dies_with_us: bool = False,
    ) -> "Process":
        """Start *argv*, its output in *log*.

        With *dies_with_us* the kernel ends it when the calling thread ends, however that happens
        (Linux with util-linux; elsewhere an ordinary child).
        """
        words = [str(word) for word in argv]
        if dies_with_us and shutil.which("setpriv"):
            words = ["setpriv", "--pdeathsig", "KILL", "--", *words]
        with log.open("ab") as output:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        if not dies_with_us:
            _outliving.append(child)
        return cls(name, child, log)

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Raise, with the end of its log, if it has ended."""
        code = self._child.poll()
        if code is not None:
            end = tail(self.log.read_text(errors="replace"))
            raise HarnessError(f"{self.name} ended with {code}; the end of {self.log}:\n{end}")

    def stop(self) -> None:
        """End it and wait for that."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()


def wait_until(
    what: str, ready: Callable[[], bool], *, processes: Iterable[Process] = (), seconds: float = 90
) -> None:
    """Return when *ready* says so; fail early when one of *processes* ends.

    Raises
    ------
    HarnessError
        A process ended, or *what* did not come true within *seconds*; the message names the logs.
    """
    watched = list(processes)
    deadline = time.monotonic() + seconds
    while not ready():
        for process in watched:
            process.check()
        if time.monotonic() > deadline:
            logs = ", ".join(str(process.log) for process in watched) or "none"
            raise HarnessError(f"{what}: not within {seconds:g} s; logs: {logs}")
        time.sleep(POLL_SECONDS)


def answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of *url*, which is on this machine, gets a 200."""
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def listens(host: str, port: int) -> bool:
    """Whether a connection to *host* and *port* is accepted."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
