"""What is fetched, and the two that fetch it: each a process that ends when all is there and verified."""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from tests.support.gguf import write_tiny_gguf
from tests.support.listed import SCHEME, Listed, environment, listing
from tests.support.measured import Measured, measured

FILES: Final = 20
FILE_BYTES: Final = 100_000_000


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


def ours(address: str, folder: Path) -> Measured:
    source = f"{SCHEME}{address.removeprefix('http')}list.json"
    command = [sys.executable, "-m", "tests.support.listed", "fetch"]
    return _run(command, folder, environment(source, folder))


def theirs(address: str, folder: Path) -> Measured:
    names = " ".join(f"{address}{name}" for name in ["SUMS", "00.gguf", *_names()])
    script = f"for url in {names}; do curl -fsS --noproxy '*' -O $url; done; sha256sum --quiet -c SUMS"
    return _run(["sh", "-ec", script], folder, dict(os.environ), inside=True)


def _names() -> list[str]:
    return [f"{number:02}.bin" for number in range(1, FILES)]


def _run(command: list[str], folder: Path, environment: dict[str, str], *, inside: bool = False) -> Measured:
    """`inside`: it is run in the folder. Otherwise here, where its modules are."""
    folder.mkdir()
    # What the last one wrote is no business of this one's.
    os.sync()
    try:
        run = measured(command, environment, folder if inside else None)
    finally:
        shutil.rmtree(folder)
    if run.exit_code:
        raise RuntimeError(f"{command!r} ended with {run.exit_code}")
    return run
