"""The control groups of the single node's pods: made before the kubelet starts, removed after it is gone."""

import time
from pathlib import Path

from tests.cluster.errors import HarnessError

MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = "+cpuset +cpu +io +memory +pids"


def _roots(name: str) -> list[Path]:
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT / name]
    return [hierarchy / name for hierarchy in sorted(MOUNT.iterdir()) if hierarchy.is_dir()]


def create(name: str) -> None:
    """Make the group in every hierarchy; its children may then use all controllers."""
    for group in _roots(name):
        group.mkdir(exist_ok=True)
        if group.parent == MOUNT:
            available = (group / "cgroup.controllers").read_text().split()
            wanted = [word for word in CONTROLLERS.split() if word[1:] in available]
            (group / "cgroup.subtree_control").write_text(" ".join(wanted))


def remove(name: str, seconds: float = 10) -> None:
    """Remove the group and all below it; what ran there has ended, or is about to.

    Raises
    ------
    HarnessError
        A group is still in use after *seconds*.
    """
    deadline = time.monotonic() + seconds
    for root in _roots(name):
        groups = [*(path for path in root.rglob("*") if path.is_dir()), root] if root.is_dir() else []
        for group in sorted(groups, key=lambda path: len(path.parts), reverse=True):
            while group.is_dir():
                try:
                    group.rmdir()
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise HarnessError(f"{group} is still in use: {error}") from error
                    time.sleep(0.05)
