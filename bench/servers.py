"""The two servers under test, each a process of its own on loopback, alone on the machine while it is measured."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import peers
from tests.support.ports import free_port, free_ports

THREADS = len(os.sched_getaffinity(0))
START_WITHIN = 120.0


@dataclass(frozen=True)
class Shape:
    """What both are started with: so many streams at once, so much context for each."""

    model: Path
    streams: int
    context: int
    """Tokens a stream."""


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    """Where the API answers."""
    ops_url: str
    pid: int
    command: str
    """For people who want to repeat it."""
    start_seconds: float
    """From the process's start until it said that it was ready."""


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    while time.monotonic() < began + START_WITHIN:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return time.monotonic() - began
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise SystemExit(f"the server didn't become ready; the end of its log:\n{log.read_text()[-2000:]}")


@contextmanager
def _run(
    name: str, argv: Sequence[str | Path], env: dict[str, str], url: str, ops: str, ready: str
) -> Iterator[Server]:
    command = " ".join(str(word) if not isinstance(word, Path) else word.name for word in argv)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen([str(word) for word in argv], env=env, stdout=sink, stderr=sink)
        try:
            seconds = wait_for(ready, process, log)
            yield Server(name, url, ops, process.pid, command, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def ours(shape: Shape) -> Iterator[Server]:
    port, ops_port = free_ports(2)
    argv: list[str | Path] = [Path(sys.executable).with_name("slm-runtime"), "serve", "--model", shape.model]
    argv += ["--name", "bench", "--port", str(port), "--ops-port", str(ops_port)]
    argv += ["--context-length", str(shape.context), "--parallel", str(shape.streams)]
    argv += ["--threads", str(THREADS)]
    api, ops = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops_port}"
    with _run("slm-runtime", argv, dict(os.environ), api, ops, f"{ops}/readyz") as server:
        yield server


@contextmanager
def llama_server(shape: Shape) -> Iterator[Server]:
    port = free_port()
    folder = peers.folder()
    argv: list[str | Path] = [folder / "llama-server", "--model", shape.model, "--alias", "bench"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--parallel", str(shape.streams)]
    argv += ["--ctx-size", str(shape.context * shape.streams), "--threads", str(THREADS)]
    argv += ["--threads-batch", str(THREADS), "--flash-attn", "on", "--cache-ram", "0", "--offline"]
    argv += ["--log-verbosity", "1"]
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    api = f"http://127.0.0.1:{port}"
    with _run("llama-server", argv, env, api, api, f"{api}/health") as server:
        yield server


SERVERS = {"slm-runtime": ours, "llama-server": llama_server}


def resident_bytes(pid: int) -> int:
    """Of the process and all its descendants, from /proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for each in [pid, *descendants(pid)]:
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * page
        except FileNotFoundError:
            continue
    return total


def cpu_seconds(pid: int) -> float:
    """Of the process alone, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
