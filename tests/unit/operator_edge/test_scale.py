"""Thousands of SLMDeployments and nodes: whom a change wakes, and for how long nobody else gets a turn."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from slm_operator.cluster import errors
from slm_operator.cluster.resources import NODE, POD, SERVICE, SLM_DEPLOYMENT, WATCHED
from slm_operator.queue import Lane, WorkQueue
from slm_operator.reconcile import Reconciler
from slm_operator.resync import SETTLE, Resync
from slm_operator.snapshot import Decision, Plan, Snapshot
from slm_operator.store import Key, Store
from slm_operator.waking import NODES_SETTLE, SLICE
from tests.sim.cluster import MemoryCluster
from tests.sim.loop import simulate, wall_clock
from tests.unit.operator_edge.objects import SETTINGS, node, slm


def named(number: int) -> dict:
    document = slm(number + 1)
    document["metadata"] |= {"name": f"a{number}", "uid": f"uid-{number}"}
    return document


class Stage:
    """A reconciler whose core wants nothing and counts whom it sees."""

    def __init__(self, size: int, *, settled: frozenset[str] = frozenset()) -> None:
        self.store: Store = Store(SETTINGS.classes)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.seen: Counter[str] = Counter()
        self._settled = settled
        self.reconciler = Reconciler(
            cluster=MemoryCluster(),
            store=self.store,
            queue=self.queue,
            settings=SETTINGS,
            decide=self._decide,
            clock=wall_clock,
        )
        for number in range(size):
            self.store.observe(SLM_DEPLOYMENT, named(number))

    def _decide(self, snapshot: Snapshot) -> Decision:
        name = snapshot.resource["metadata"]["name"]
        self.seen[name] += 1
        return Decision(
            Plan(), snapshot.resource.get("status") or {}, watches_nodes=name not in self._settled
        )

    def change_nodes(self, count: int, version: int) -> None:
        for number in range(count):
            document = node(version + number, spec={"unschedulable": bool(version % 2)})
            document["metadata"]["name"] = f"n{number}"
            self.reconciler.wake(self.store.observe(NODE, document))


def test_thousands_of_node_changes_are_one_wake():
    async def scenario():
        stage = Stage(250)
        stage.change_nodes(1000, 1000)
        working = asyncio.create_task(stage.reconciler.work())
        await asyncio.sleep(NODES_SETTLE + 2)
        stage.change_nodes(1000, 3001)
        await asyncio.sleep(NODES_SETTLE + 1)
        working.cancel()
        assert set(stage.seen.values()) == {2}
        assert len(stage.seen) == 250

    simulate(scenario())


def test_nodes_that_go_on_changing_wake_ever_more_rarely():
    """At 50 a second, as `kubectl label nodes --all` does it, 5,000 take a hundred seconds."""

    async def scenario():
        stage = Stage(3)
        working = asyncio.create_task(stage.reconciler.work())
        for version in range(5000):
            stage.change_nodes(1, 1000 + version)
            await asyncio.sleep(0.02)
        await asyncio.sleep(60)
        assert set(stage.seen.values()) == {10}
        stage.change_nodes(1, 9000)
        await asyncio.sleep(NODES_SETTLE + 0.1)
        working.cancel()
        assert set(stage.seen.values()) == {11}

    simulate(scenario())


def test_nodes_wake_only_whom_they_concern():
    async def scenario():
        stage = Stage(3, settled=frozenset({"a1"}))
        working = asyncio.create_task(stage.reconciler.work())
        for key in stage.store.deployments():
            stage.queue.add(key)
        await asyncio.sleep(1)
        stage.change_nodes(1, 1000)
        await asyncio.sleep(NODES_SETTLE + 1)
        working.cancel()
        assert stage.seen == {"a0": 2, "a1": 1, "a2": 2}

    simulate(scenario())


@pytest.mark.parametrize("workers", [1, 16])
def test_others_get_a_turn_while_thousands_are_looked_at(workers):
    """The Lease is renewed in between, and probes are answered."""

    async def scenario():
        stage = Stage(2000)
        turns = []

        async def somebody():
            while not turns or turns[-1] < 2000:
                turns.append(sum(stage.seen.values()))
                await asyncio.sleep(0)

        stage.change_nodes(1, 1000)
        tasks = [asyncio.create_task(stage.reconciler.work()) for _ in range(workers)]
        tasks.append(asyncio.create_task(somebody()))
        await asyncio.sleep(0)
        stage.reconciler._waker.wake_for_nodes()
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        between = [after - before for before, after in pairwise(turns)]
        assert turns[-1] == 2000
        assert max(between) <= workers

    simulate(scenario())


def test_a_slice_at_a_time_is_queued():
    async def scenario():
        stage = Stage(3 * SLICE)
        stage.reconciler._waker.wake_for_nodes()
        depths = []
        while not depths or depths[-1] < 3 * SLICE:
            depths.append(stage.queue.depth(Lane.REPORT))
            await asyncio.sleep(0)
        assert {SLICE, 2 * SLICE, 3 * SLICE} <= set(depths)

    simulate(scenario())


class Counting(MemoryCluster):
    def __init__(self) -> None:
        super().__init__(admit=lambda document: document)
        self.listed: list[tuple[str, float]] = []

    async def list(self, resource, namespace, keep):  # type: ignore[override]
        self.listed.append((resource.kind, asyncio.get_running_loop().time()))
        return await super().list(resource, namespace, keep)


def test_only_the_kind_is_listed_whose_watch_began_anew_and_when_it_is_through():
    async def scenario():
        cluster, stage = Counting(), Stage(0)
        resync = Resync(
            cluster=cluster,
            store=stage.store,
            queue=stage.queue,
            reconciler=stage.reconciler,
            namespaces=(),
            interval=600.0,
        )
        running = asyncio.create_task(resync.run())
        await asyncio.sleep(10)
        for _ in range(20):
            resync.ask(POD)
            await asyncio.sleep(1)
        resync.ask(SERVICE)
        await asyncio.sleep(60)
        running.cancel()
        assert [kind for kind, _ in cluster.listed] in (["Pod", "Service"], ["Service", "Pod"])
        assert all(at == pytest.approx(30 + SETTLE) for _, at in cluster.listed)

    simulate(scenario())


def test_after_a_refused_list_of_one_kind_all_are_listed():
    class Refusing(Counting):
        async def list(self, resource, namespace, keep):  # type: ignore[override]
            if resource is POD and not self.listed:
                self.listed.append(("refused", 0))
                raise errors.UnavailableError("no answer")
            return await super().list(resource, namespace, keep)

    async def scenario():
        cluster, stage = Refusing(), Stage(0)
        resync = Resync(
            cluster=cluster,
            store=stage.store,
            queue=stage.queue,
            reconciler=stage.reconciler,
            namespaces=(),
            interval=600.0,
        )
        running = asyncio.create_task(resync.run())
        resync.ask(POD)
        await asyncio.sleep(60)
        running.cancel()
        assert [kind for kind, _ in cluster.listed] == ["refused", *(each.kind for each in WATCHED)]

    simulate(scenario())
