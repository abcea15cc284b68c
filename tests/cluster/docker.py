"""The Docker engine, asked by its own command."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.commands import run, tail
from tests.cluster.errors import HarnessError

OLDEST = (20, 10)
"""The first whose containers can have a cgroup namespace of their own, as kind's nodes do."""
PATIENCE = 30


def unavailable() -> str | None:
    """Why kind can't be used here; None where it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the Docker engine gave no answer within {PATIENCE} s: restart it"
    return refusal(asked.stderr) if asked.returncode else too_old(asked.stdout) or unfit(info())


def refusal(words: str) -> str:
    """PURE: what the docker command's *words* mean, where it reached no engine."""
    if "permission denied" in words.lower():
        return "this user may not use the Docker engine: join the group docker and log in again (or use root)"
    if "cannot connect" in words.lower():
        return "no Docker engine answers"
    return f"no Docker engine answers: {tail(words, 1)}"


def too_old(version: str) -> str | None:
    """PURE: what is wrong with an engine of this *version*; None where nothing is."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        return f"the Docker engine is {version.strip()}, kind needs {'.'.join(map(str, OLDEST))} or newer"
    return None


def unfit(told: Mapping[str, Any]) -> str | None:
    """PURE: what of the engine's own account (``docker info``) keeps a node from running; None where nothing does."""
    rootless = any("rootless" in option for option in told.get("SecurityOptions") or ())
    if rootless and told.get("CgroupVersion") != "2":
        return "a rootless Docker engine runs nodes only on a machine with cgroup v2"
    return None


def info() -> dict[str, Any]:
    """The engine's own account of itself."""
    told: dict[str, Any] = json.loads(run(["docker", "info", "--format", "{{json .}}"], timeout=PATIENCE))
    return told


def require_space(gib: float) -> None:
    """Refuse to fill the engine's disk halfway; one that isn't this machine's can't be looked at.

    Raises
    ------
    HarnessError
        Fewer than *gib* GiB are free there.
    """
    root = Path(info().get("DockerRootDir") or "")
    try:
        free = shutil.disk_usage(root).free / 2**30
    except OSError:
        return
    if free < gib:
        raise HarnessError(
            f"a node needs about {gib:g} GiB in Docker's folder {root}, {free:.1f} GiB are free: make room "
            "(`docker system df` tells what takes it)"
        )


def short_of_memory(gib: float) -> str | None:
    """What is said where the engine's machine has less than *gib* GiB of memory; None where it has as much."""
    has: float = info()["MemTotal"] / 2**30
    return None if has >= gib else f"Docker's machine has {has:.1f} GiB of memory, {gib:g} are wanted"


def remove_images(prefix: str) -> None:
    """Remove what the engine holds of images whose names begin with *prefix*, but for those in use."""
    names = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).split()
    for name in names:
        if name.startswith(prefix):
            # The engine refuses what a container is made of, another cluster's node for one.
            subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)
