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
