"""How many CPUs this process may really use: not the host's cores, which a quota or an affinity may cut."""

import math
import os
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Threads that can run at once: the smaller of affinity and cgroup quota, at least 1.

    Parameters
    ----------
    root
        Where `proc` and `sys` are mounted; tests give another.
    """
    quotas = [quota for folder in _cgroups(root) if (quota := _quota(folder)) is not None]
    return max(1, math.floor(min([len(os.sched_getaffinity(0)), *quotas])))


def _cgroups(root: Path) -> list[Path]:
    """The cgroup of this process and those above it, in both hierarchies: the tightest limit counts."""
    mount = root / "sys/fs/cgroup"
    folders = [mount, mount / "cpu"]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" or "cpu" in controllers.split(","):
            base = mount if controllers == "" else mount / "cpu"
            current = base / path.strip("/")
            while current not in (base, mount) and base in current.parents:
                folders.append(current)
                current = current.parent
    return folders


def _quota(folder: Path) -> float | None:
    """CPUs that one cgroup may use; None where it sets no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        limit = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max"
    return limit if limit > 0 else None
