"""The harness as pytest fixtures; where one can't be had, its tests are skipped with the reason."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cluster import Cluster, ControlPlane, NoCluster, cache, select

KEEP = "SLM_KEEP_CLUSTER"
"""Set it to leave the cluster of the tests running, to look into it or to start the next run sooner."""


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
