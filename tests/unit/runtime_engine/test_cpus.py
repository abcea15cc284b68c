"""How many CPUs, how many threads, and which CPU variant."""

import os
from pathlib import Path

import pytest

from slm_runtime.engine.cpus import available_cpus

affinity = len(os.sched_getaffinity(0))


def files(root: Path, **content: str) -> Path:
    for name, text in content.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ({}, affinity),
        ({"sys__fs__cgroup__cpu_dot_max": "max 100000"}, affinity),
        ({"sys__fs__cgroup__cpu_dot_max": "100000 100000"}, 1),
        ({"sys__fs__cgroup__cpu_dot_max": "50000 100000"}, 1),
        ({"sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us": "-1", "sys__fs__cgroup__cpu__cpu_dot_cfs_period_us": "1"}, affinity),
        ({"sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us": "150", "sys__fs__cgroup__cpu__cpu_dot_cfs_period_us": "100"}, 1),
        (
            {
                "proc__self__cgroup": "0::/pod/container\n",
                "sys__fs__cgroup__pod__cpu_dot_max": "100000 100000",
                "sys__fs__cgroup__pod__container__cpu_dot_max": "max 100000",
            },
            1,
        ),
        (
            {
                "proc__self__cgroup": "5:cpu,cpuacct:/pod\n",
                "sys__fs__cgroup__cpu__pod__cpu_dot_cfs_quota_us": "100000",
                "sys__fs__cgroup__cpu__pod__cpu_dot_cfs_period_us": "100000",
            },
            1,
        ),
    ],
)  # fmt: skip
def test_the_tightest_of_affinity_and_quotas_counts(tmp_path, content, cpus):
    assert available_cpus(files(tmp_path, **content)) == cpus


def machine(root: Path, *, cores: int, threads: int, nodes: int) -> Path:
    """As Linux shows one whose CPUs are numbered core by core, and then their second threads."""
    share = cores // nodes
    for core in range(cores):
        numbers = [core + cores * thread for thread in range(threads)]
        for cpu in numbers:
            path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            path.parent.mkdir(parents=True)
            path.write_text(",".join(map(str, numbers)) + "\n")
    for node in range(nodes):
        path = root / f"sys/devices/system/node/node{node}/cpulist"
        path.parent.mkdir(parents=True)
        ranges = [(cores * t + share * node, cores * t + share * (node + 1) - 1) for t in range(threads)]
        path.write_text(",".join(f"{low}-{high}" for low, high in ranges) + "\n")
    return root


@pytest.mark.parametrize(
    ("cores", "threads", "nodes", "used"),
    [(2, 1, 1, 2), (8, 2, 1, 8), (64, 2, 2, 32), (96, 1, 4, 24), (1, 2, 1, 2), (1, 1, 1, 1)],
)
def test_threads_are_as_many_as_one_memory_node_has_cores(tmp_path, cores, threads, nodes, used):
    root = machine(tmp_path, cores=cores, threads=threads, nodes=nodes)
    assert available_cpus(root, range(cores * threads)) == used


def test_of_cores_that_may_be_used_the_node_with_most_counts(tmp_path):
    root = machine(tmp_path, cores=16, threads=2, nodes=2)
    assert available_cpus(root, [0, 16, 1, 17, 8, 9, 10]) == 3
    files(tmp_path, sys__fs__cgroup__cpu_dot_max="200000 100000")
    assert available_cpus(root, range(32)) == 2
