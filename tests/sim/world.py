"""A cluster, its controllers, and operators that come, go and fail: the stage of every simulation.

The operator's parts are the real ones; in place of Kopf and HTTP stand `Stream`, which delivers events in order
and may hold them back or lose them, and `Gate`, which lets writes through and may crash the operator before or
after any of them.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import NODE, OPTIONAL, Resource, optional, watched
from slm_operator.queue import WorkQueue
from slm_operator.reconcile import Reconciler
from slm_operator.reports import Reports
from slm_operator.resync import Resync
from slm_operator.settings import Settings
from slm_operator.snapshot import Decision, Snapshot
from slm_operator.store import Key, Store
from tests.sim.cluster import Doc, Event, MemoryCluster, Ref, ref_of
from tests.sim.controllers import Controllers
from tests.sim.loop import wall_clock

Decide = Callable[[Snapshot], Decision]
LATENCY = 0.01
QUIET_STEPS = 20
RESYNCED_STEPS = 14
"""Of a minute each: long enough for a resync and the longest backoff."""


class Crash(BaseException):
    """The operator's process is gone."""


@dataclass
class Faults:
    """What goes wrong, by number of the operator's write since the world began."""

    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()
    refuse: Callable[[str, Ref], errors.ClusterError | None] = lambda _verb, _ref: None
    stale_by: int = 0
    """How many revisions the lists of a starting operator are behind."""
    lose: Callable[[Event], bool] = lambda _event: False
    delay: Callable[[Event], float] = lambda _event: LATENCY


@dataclass
class World:
    """Everything; `settle` lets time pass until nothing happens any more."""

    settings: Settings
    decide: Decide
    faults: Faults = field(default_factory=Faults)
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    asked: int = 0
    crashes: int = 0
    patient: bool = False
    """Whether people wait for a resync before they do the next thing: watches lose events."""
    operators: "list[SimOperator]" = field(default_factory=list)
    watch: Callable[["World"], None] = lambda _world: None
    """Called after each step: the safety checks."""

    def __post_init__(self) -> None:
        self.controllers = Controllers(self.cluster)

    async def start(self, count: int = 1) -> None:
        for _ in range(count):
            await self._start_one()

    async def stop(self) -> None:
        while self.operators:
            await self.operators.pop().stop()

    async def step(self) -> None:
        """The controllers move one state on; who crashed is started anew."""
        self.controllers.step()
        await self._raise_the_dead()
        self.watch(self)

    async def pause(self) -> None:
        """Until nothing has changed for a while, as people wait: longer where they are patient."""
        await self._rest(QUIET_STEPS + RESYNCED_STEPS * self.patient)

    async def settle(self) -> None:
        """Until nothing has changed for so long that a resync and every backoff have passed."""
        await self._rest(QUIET_STEPS + RESYNCED_STEPS)

    async def _rest(self, steps: int) -> None:
        quiet = 0
        for _ in range(5000):
            revision = self.cluster.revision
            await asyncio.sleep(1 if quiet < QUIET_STEPS else 60)
            await self.step()
            still = self.cluster.revision == revision and all(each.idle for each in self.operators)
            quiet = quiet + 1 if still else 0
            if quiet > steps:
                return
        raise AssertionError("the world doesn't come to rest")

    async def _start_one(self) -> None:
        while True:
            operator = SimOperator(self)
            try:
                await operator.start()
            except Crash:
                self.crashes += 1
                await operator.stop()
                continue
            self.operators.append(operator)
            return

    async def _raise_the_dead(self) -> None:
        for operator in [each for each in self.operators if each.crashed]:
            self.operators.remove(operator)
            await operator.stop()
            self.crashes += 1
            await self._start_one()


class SimOperator:
    """One operator process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = Store(world.settings.classes)
        jitter = random.Random(world.asked)
        self.queue: WorkQueue[Key] = WorkQueue(jitter=jitter)
        self.gate = Gate(world)
        self.reconciler = Reconciler(
            cluster=self.gate,
            store=self.store,
            queue=self.queue,
            settings=world.settings,
            decide=world.decide,
            clock=wall_clock,
        )
        self.resync = Resync(
            cluster=self.gate,
            store=self.store,
            queue=self.queue,
            reconciler=self.reconciler,
            namespaces=world.settings.namespaces,
            interval=world.settings.resync_seconds,
            watched=watched(world.settings),
            optional=optional(world.settings),
            jitter=jitter,
        )
        self.reports = Reports(
            store=self.store, queue=self.queue, fetch=self._fetch, interval=world.settings.poll_seconds
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def _fetch(self, address: str) -> bytes | None:
        await asyncio.sleep(LATENCY)
        return self.world.controllers.report(address)

    @property
    def crashed(self) -> bool:
        return any(task.done() for task in self._tasks)

    @property
    def idle(self) -> bool:
        return self.queue.idle

    async def start(self) -> None:
        position = len(self.world.cluster.history)
        stale = min(self.world.faults.stale_by, position)
        self.gate.stale_until = position - stale
        await self.resync.start()
        self.gate.stale_until = None
        loops = [self.reconciler.work() for _ in range(2)]
        loops += [self.resync.run(), self.reports.run(), self._follow(position - stale)]
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(Crash, asyncio.CancelledError):
                await task

    async def _follow(self, position: int) -> None:
        """The watches: every event of ours, in order, some late, some never."""
        kinds = (*watched(self.world.settings), *OPTIONAL)
        by_kind = {resource.kind: resource for resource in kinds}
        history = self.world.cluster.history
        changed = asyncio.Event()
        self.world.cluster.watchers.append(changed.set)
        while True:
            changed.clear()
            while position < len(history):
                event = history[position]
                position += 1
                resource = by_kind.get(event.ref.kind)
                if (
                    resource is None
                    or self.world.faults.lose(event)
                    or not _concerns(resource, event.document)
                ):
                    continue
                await asyncio.sleep(self.world.faults.delay(event))
                deleted = event.type == "DELETED"
                self.reconciler.wake(self.store.observe(resource, event.document, deleted=deleted))
            await changed.wait()


class Gate:
    """The cluster as one operator reaches it: numbered writes, any of which may be its last."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cluster = world.cluster
        self.stale_until: int | None = None

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        keep: Callable[[Doc], Any],
        *,
        field_selector: str = "",
        cached: bool = False,
    ) -> Listing[Any]:
        await asyncio.sleep(LATENCY)
        selected = {"field_selector": field_selector}
        if self.stale_until is None:
            return await self._cluster.list(resource, namespace, keep, **selected)
        earlier = MemoryCluster(served=self._cluster.served)
        for event in self._cluster.history[: self.stale_until]:
            earlier.revision = int(event.document["metadata"]["resourceVersion"])
            if event.type == "DELETED":
                del earlier.objects[event.ref]
            else:
                earlier.objects[event.ref] = event.document
        return await earlier.list(resource, namespace, keep, **selected)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Doc:
        return await self._cluster.get(resource, namespace, name)

    async def serves(self, resource: Resource) -> bool:
        return await self._cluster.serves(resource)

    async def create(self, document: Doc) -> Doc:
        return await self._pass("create", ref_of(document), lambda: self._cluster.create(document))

    async def replace(self, document: Doc) -> Doc:
        return await self._pass("replace", ref_of(document), lambda: self._cluster.replace(document))

    async def apply(self, document: Doc, *, force: bool = True) -> Doc:
        return await self._pass("apply", ref_of(document), lambda: self._cluster.apply(document, force=force))

    async def consolidate(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> Doc:
        def consolidate() -> Any:
            return self._cluster.consolidate(
                resource, namespace, name, uid=uid, resource_version=resource_version
            )

        return await self._pass("consolidate", Ref(resource.kind, namespace, name), consolidate)

    async def overwrite(self, document: Doc) -> Doc:
        return await self._pass("overwrite", ref_of(document), lambda: self._cluster.overwrite(document))

    async def apply_status(self, document: Doc) -> Doc:
        return await self._pass("status", ref_of(document), lambda: self._cluster.apply_status(document))

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> None:
        def delete() -> Any:
            return self._cluster.delete(resource, namespace, name, uid=uid, resource_version=resource_version)

        await self._pass("delete", Ref(resource.kind, namespace, name), delete)

    async def _pass(self, verb: str, ref: Ref, write: Callable[[], Any]) -> Any:
        await asyncio.sleep(LATENCY)
        number = self._world.asked
        self._world.asked += 1
        if number in self._world.faults.before:
            raise Crash
        if (refusal := self._world.faults.refuse(verb, ref)) is not None:
            raise refusal
        try:
            return await write()
        finally:
            if number in self._world.faults.after:
                raise Crash


def _concerns(resource: Resource, document: Doc) -> bool:
    if not resource.selector:
        return True
    key, _, value = resource.selector.partition("=")
    return (document["metadata"].get("labels") or {}).get(key) == value


def counts(cluster: MemoryCluster) -> Counter[tuple[str, str, str]]:
    """How often each name came and went; pods are the controllers' affair."""
    return Counter(
        (event.type, event.ref.kind, event.ref.name)
        for event in cluster.history
        if event.type != "MODIFIED" and event.ref.kind not in {"Pod", NODE.kind}
    )
