"""The harness as pytest fixtures; where one can't be had, its tests are skipped with the reason."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cluster import Cluster, ControlPlane, NoCluster, cache, docker, select
from tests.cluster.kind import KindCluster

KEEP = "SLM_KEEP_CLUSTER"
"""Set it to leave the cluster of the tests running, to look into it or to start the next run sooner."""

WORKERS_GIB = 8.0
"""Memory of a machine on which three nodes and what the tests put there have room, beside the other cluster."""


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """An API server with controller manager and scheduler, for the whole run."""
    with ControlPlane(controllers=True) as plane:
        yield plane


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A whole cluster for the whole run, apart from the one of the demo; a second run waits for the first."""
    with ExitStack() as held:
        try:
            chosen = select("tests")
            held.enter_context(cache.lock(f"tests-on-{chosen.kind}"))
            chosen.up()
        except NoCluster as reason:
            pytest.skip(str(reason))
        yield chosen
        if not os.environ.get(KEEP):
            chosen.down()


@pytest.fixture(scope="session")
def workers() -> Iterator[KindCluster]:
    """A cluster of its own with two nodes that run pods, which may be drained and lost: only kind makes such."""
    with ExitStack() as held:
        try:
            if select().kind != "kind":
                pytest.skip(
                    "several nodes are wanted, which only kind makes here (Docker; CLUSTER unset or kind)"
                )
            if reason := docker.short_of_memory(WORKERS_GIB):
                pytest.skip(f"several nodes are wanted: {reason}")
            cluster = KindCluster("workers", workers=2)
            held.enter_context(cache.lock("workers-on-kind"))
            cluster.up()
        except NoCluster as reason:
            pytest.skip(str(reason))
        yield cluster
        if not os.environ.get(KEEP):
            cluster.down()
