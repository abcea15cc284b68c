"""The first list, of a cluster that was just given the CRD or gives the operator too few rights."""

from datetime import UTC, datetime

import pytest
from typing_extensions import override

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import NAMESPACE, PROMETHEUS, PROMETHEUS_AGENT
from slm_operator.queue import Lane, WorkQueue
from slm_operator.resync import Resync
from slm_operator.scrapers import Scraper, Scrapers
from slm_operator.settings import Settings
from slm_operator.store import Store
from tests.sim.cluster import MemoryCluster
from tests.sim.loop import simulate
from tests.unit.operator_edge.objects import KEY, slm


class Refusing(MemoryCluster):
    """Answers so many lists with an error before it answers."""

    def __init__(self, error: errors.ClusterError, times: int) -> None:
        super().__init__(admit=lambda document: document)
        self.error, self.times = error, times

    @override
    async def list(self, resource, namespace, keep):
        if self.times:
            self.times -= 1
            raise self.error
        return await super().list(resource, namespace, keep)


def start(cluster: Refusing) -> tuple[Store, int]:
    """The store after a start on *cluster*, and how many deployments were queued."""
    store, queue = Store(), WorkQueue()
    resync = Resync(cluster=cluster, store=store, queue=queue, reconciler=None, namespaces=(), interval=600.0)

    async def scenario():
        cluster.put(slm(0))
        await resync.start()

    simulate(scenario())
    return store, queue.depth(Lane.ACT)


def test_what_passes_by_itself_is_waited_for():
    throttled = errors.ThrottledError("storage is (re)initializing", retry_after=1)
    store, queued = start(Refusing(throttled, times=3))
    assert set(store.deployments()) == {KEY}
    assert queued == 1


def test_what_waiting_cannot_help_ends_the_start():
    with pytest.raises(errors.ForbiddenError, match="nodes is forbidden"):
        start(Refusing(errors.ForbiddenError("nodes is forbidden"), times=1))


class Monitored(MemoryCluster):
    """Has one Prometheus, no agents, and tells of both only to who may see namespaces."""

    def __init__(self, *, seen: bool) -> None:
        super().__init__(admit=lambda document: document)
        self._seen = seen

    @override
    async def serves(self, resource):
        return True

    @override
    async def list(self, resource, namespace, keep):
        if resource is PROMETHEUS:
            metadata = {"name": "k8s", "namespace": "monitoring"}
            return Listing([keep({"metadata": metadata, "spec": {"serviceMonitorSelector": {}}})], "1")
        if resource is PROMETHEUS_AGENT:
            raise errors.MissingError("the server could not find the requested resource")
        if resource is NAMESPACE:
            if not self._seen:
                raise errors.ForbiddenError("namespaces is forbidden")
            return Listing([keep({"metadata": {"name": "demo", "labels": {"team": "a"}}})], "1")
        return await super().list(resource, namespace, keep)


@pytest.mark.parametrize("seen", [True, False])
def test_who_scrapes_is_known_where_it_may_be_seen(seen):
    store, queue = Store(), WorkQueue()
    cluster = Monitored(seen=seen)
    resync = Resync(
        cluster=cluster,
        store=store,
        queue=queue,
        reconciler=None,
        namespaces=("demo",),
        interval=600.0,
        scrapers=True,
    )

    async def scenario():
        cluster.put(slm(0))
        await resync.start()

    simulate(scenario())
    (key,) = store.deployments()
    settings = Settings(runtime_image="image", classes=())
    scrapers = store.snapshot(key, settings, datetime(2026, 1, 1, tzinfo=UTC)).scrapers
    known = Scraper(name="k8s", namespace="monitoring", monitors={}, namespaces=None)
    assert scrapers == (Scrapers((known,), {"demo": {"team": "a"}}) if seen else None)
