"""How many CPUs this process may really use: not the host's, which a quota or an affinity may cut.

And of these as many as help. A step's threads meet at hundreds of barriers: two on one core keep each other waiting there,
and a barrier between the memory nodes of a large machine takes longer than what a small model has to do between two.
"""

import math
import os
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def available_cpus(root: Path = Path("/"), affinity: Collection[int] | None = None) -> int:
    """Threads to compute with: what the cgroup's quota lets run at once, of the cores of one memory node; at least 1.

    Parameters
    ----------
    root
        Where `proc` and `sys` are mounted; tests give another.
    affinity
        Numbers of the CPUs that may be used; None: as the kernel says.
    """
    cpus = os.sched_getaffinity(0) if affinity is None else affinity
    quotas = [quota for folder in _cgroups(root) if (quota := _quota(folder)) is not None]
    return max(1, math.floor(min([_useful(root, cpus), *quotas])))


def _useful(root: Path, cpus: Collection[int]) -> int:
    """Cores of the memory node that has the most of them; both threads of a core where there is but one."""
    nodes: dict[int, int] = {}
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        with suppress(OSError, ValueError):
            here = _numbers((folder / "cpulist").read_text())
            nodes |= dict.fromkeys(here, int(folder.name.removeprefix("node")))
    first = {_first_of_core(root, cpu) for cpu in cpus}
    cores = Counter(nodes.get(core, 0) for core in first)
    return max(*cores.values(), min(2, len(cpus)))


def _first_of_core(root: Path, cpu: int) -> int:
    """A name for the CPU's core; the CPU itself where the kernel says nothing of cores."""
    siblings = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    with suppress(OSError, ValueError):
        return min(_numbers(siblings.read_text()), default=cpu)
    return cpu


def _numbers(text: str) -> list[int]:
    """`0-3,8` as the kernel writes lists of CPUs."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


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
