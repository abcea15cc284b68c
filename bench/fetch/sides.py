"""What is fetched, and the two that fetch it: each a process that ends when all is there and verified."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.gguf import write_tiny_gguf
from tests.support.listed import SCHEME, Listed, environment, listing

FILES: Final = 20
FILE_BYTES: Final = 100_000_000
LOOK_SECONDS: Final = 0.01


def publish(root: Path) -> None:
    """Write a model of many files, their list, and their checksums as sha256sum wants them."""
    files = []
    for number in range(FILES):
        path = root / (f"{number:02}.bin" if number else "00.gguf")
        header = write_tiny_gguf(path).read_bytes() if number == 0 else b""
        data = header + os.urandom(FILE_BYTES - len(header))
        path.write_bytes(data)
        files.append(Listed(path=path.name, sha256=hashlib.sha256(data).hexdigest()))
    (root / "list.json").write_bytes(listing(files))
    (root / "SUMS").write_text("".join(f"{each.sha256}  {each.path}\n" for each in files))


@dataclass(frozen=True)
class Run:
    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    """Of the process that was started, without its children."""


def ours(address: str, folder: Path) -> Run:
    source = f"{SCHEME}{address.removeprefix('http')}list.json"
    command = [sys.executable, "-m", "tests.support.listed", "fetch"]
    return _run(command, folder, environment(source, folder))


def theirs(address: str, folder: Path) -> Run:
    names = " ".join(f"{address}{name}" for name in ["SUMS", "00.gguf", *_names()])
    script = f"for url in {names}; do curl -fsS --noproxy '*' -O $url; done; sha256sum --quiet -c SUMS"
    return _run(["sh", "-ec", script], folder, dict(os.environ), inside=True)


def interpreter() -> Run:
    """What Python takes that does nothing."""
    return _wait(subprocess.Popen([sys.executable, "-c", ""]), time.monotonic())


def _names() -> list[str]:
    return [f"{number:02}.bin" for number in range(1, FILES)]


def _run(command: list[str], folder: Path, environment: dict[str, str], *, inside: bool = False) -> Run:
    """`inside`: it is run in the folder. Otherwise here, where its modules are."""
    folder.mkdir()
    # What the last one wrote is no business of this one's.
    os.sync()
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder if inside else None, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        return _wait(process, started)
    finally:
        shutil.rmtree(folder)


def _wait(process: "subprocess.Popen[bytes]", started: float) -> Run:
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        # The kernel's own count of a process that ended begins with what its parent had.
        peak = _peak_kib(process.pid) or peak
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - started
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return Run(seconds, used.ru_utime + used.ru_stime, peak / 1024)


def _peak_kib(pid: int) -> int:
    """The most that it has had in memory; 0 where it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
