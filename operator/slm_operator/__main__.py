"""`slm-operator`: configuration, Lease, first list, then watches and workers until told to stop."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from logging import getLogger
from typing import Any, Final

import uvloop

from slm_operator import config, garbage, log, reports, watches
from slm_operator.clues import Clues
from slm_operator.cluster import connection, errors
from slm_operator.cluster.client import KubernetesClient
from slm_operator.cluster.resources import SLM_DEPLOYMENT, optional, watched
from slm_operator.decide import decide
from slm_operator.events import Events
from slm_operator.health import Health, Vitals
from slm_operator.lease import Lease, LeaseLostError
from slm_operator.metrics import Metrics
from slm_operator.queue import Lane, WorkQueue
from slm_operator.reconcile import Reconciler
from slm_operator.resync import Resync
from slm_operator.store import Key, Store

CONNECTIONS: Final = 16
"""Requests in flight: what keeps an API server of a few cores busy."""
LEASE_TIMEOUT: Final = 5.0
CRD_POLL: Final = 5.0

logger = getLogger("slm_operator")


class Exit(IntEnum):
    """Why the process ended; anything but OK is for the kubelet to restart."""

    OK = 0
    FAILED = 1
    CONFIG = 2
    LEASE_LOST = 3
    PORT_IN_USE = 4


class Operator:
    """The parts of the operator, put together once, and the order in which they come to life."""

    def __init__(self, configured: config.Config) -> None:
        self._config = configured
        self._settings = configured.settings
        self._metrics = Metrics()
        self._store = Store(self._settings.classes)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._lease: Lease | None = None
        self._resync: Resync | None = None
        self._acting = False
        self._stop = asyncio.Event()

    async def run(self) -> Exit:
        """Until SIGTERM or SIGINT, or until something that has to run has ended."""
        self._catch_signals()
        async with AsyncExitStack() as stack:
            health = Health(self._vitals(), self._metrics)
            serving = asyncio.create_task(health.serve(self._config.port), name="health")
            stack.push_async_callback(_end, serving)
            acting = asyncio.create_task(self._act(stack), name="operator")
            stopped = asyncio.create_task(self._stop.wait(), name="stop")
            await asyncio.wait({serving, acting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await _end(acting, stopped)
            if self._lease is not None:
                await self._lease.release()
            return _exit_code(serving, acting)

    async def _act(self, stack: AsyncExitStack) -> None:
        """Wait for the Lease, then be the operator."""
        configuration = await connection.load()
        lease_client = KubernetesClient(connection.api_client(configuration, 1), timeout=LEASE_TIMEOUT)
        stack.push_async_callback(lease_client.close)
        configuration = await connection.load()
        cluster = KubernetesClient(
            connection.api_client(configuration, CONNECTIONS), observer=self._metrics.requested
        )
        stack.push_async_callback(cluster.close)
        self._lease = Lease(
            cluster=lease_client,
            namespace=self._config.lease_namespace,
            name=self._config.lease_name,
            identity=self._config.identity,
            clock=_now,
        )
        await self._lease.acquire()
        events = Events(cluster=cluster, clock=_now, instance=self._config.identity)
        reconciler = Reconciler(
            cluster=cluster,
            store=self._store,
            queue=self._queue,
            settings=self._settings,
            decide=decide,
            clock=_now,
            finished=self._metrics.reconciled,
            told=events.tell,
        )
        resync = Resync(
            cluster=cluster,
            store=self._store,
            queue=self._queue,
            reconciler=reconciler,
            namespaces=self._settings.namespaces,
            interval=self._settings.resync_seconds,
            watched=watched(self._settings),
            scrapers=self._settings.monitoring.check_selection,
            optional=optional(self._settings),
        )
        session = await stack.enter_async_context(reports.session())
        polling = reports.Reports(
            store=self._store,
            queue=self._queue,
            fetch=reports.HttpFetch(session),
            interval=self._settings.poll_seconds,
        )
        clues = Clues(cluster=cluster, store=self._store, queue=self._queue)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.hold(), name="lease")
            await _until_served(cluster)
            await resync.start()
            await clues.begin()
            stack.enter_context(garbage.spared())
            tasks.create_task(garbage.thoroughly(), name="garbage")
            self._resync, self._acting = resync, True
            watcher = watches.Watcher(self._store, reconciler, resync, self._metrics.event)
            for number in range(self._settings.workers):
                tasks.create_task(reconciler.work(), name=f"worker {number}")
            tasks.create_task(resync.run(), name="resync")
            tasks.create_task(polling.run(), name="reports")
            tasks.create_task(clues.run(), name="clues")
            tasks.create_task(events.run(), name="events")
            watching = watches.watch(
                watcher,
                configuration,
                kinds=watched(self._settings),
                namespaces=self._settings.namespaces,
                identity=self._config.identity,
                started=self._catch_signals,
            )
            tasks.create_task(watching, name="watches")
            logger.info("operator started", extra={"deployments": len(self._store.deployments())})

    def _catch_signals(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, self._stop.set)

    def _vitals(self) -> Vitals:
        def list_age() -> float:
            return self._resync.age if self._resync else 0.0

        for lane in Lane:
            depth = partial(self._queue.depth, lane)
            self._metrics.gauge(f"queue_depth_{lane.name.lower()}", "Deployments that wait", depth)
        self._metrics.gauge("queue_oldest_seconds", "Wait of the longest waiting", self._queue.oldest)
        self._metrics.gauge(
            "queue_stalled_seconds", "In which no waiting one was finished", self._queue.stalled
        )
        self._metrics.conditions(self._store.conditions)
        self._metrics.gauge("list_age_seconds", "Since everything was last listed", list_age)
        self._metrics.gauge("leader", "1 where this process acts", lambda: float(self._acting))
        return Vitals(
            acting=lambda: self._acting,
            waiting=lambda: self._lease is not None and self._lease.waits,
            hindrance=lambda: self._lease.hindrance if self._lease else None,
            list_stalled=lambda: self._resync.stalled if self._resync else 0.0,
            queue_stalled=self._queue.stalled,
            list_interval=self._settings.resync_seconds,
        )


async def _until_served(cluster: KubernetesClient) -> None:
    """Wait for our CRD and say so, rather than crash until somebody installs it."""
    while not await cluster.serves(SLM_DEPLOYMENT):
        logger.warning(
            "this cluster doesn't know SLMDeployments: install the CRD (kubectl apply -f crds/, or the chart)"
        )
        await asyncio.sleep(CRD_POLL)


def _exit_code(serving: asyncio.Task[None], acting: asyncio.Task[None]) -> Exit:
    """What the process ends with, after saying why."""
    if (error := _failure(serving)) is not None:
        logger.error("can't serve health and metrics", extra={"cause": str(error)})
        return Exit.PORT_IN_USE if isinstance(error, OSError) else Exit.FAILED
    match _failure(acting):
        case None:
            return Exit.OK
        case LeaseLostError() as error:
            logger.error("lease lost", extra={"cause": str(error)})
            return Exit.LEASE_LOST
        case connection.NotConnectedError() | errors.ClusterError() as error:
            logger.error("can't work with the API server", extra={"cause": str(error)})
        case error:
            logger.error("ended", exc_info=error)
    return Exit.FAILED


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    """What ended a task, the first cause of a group; None where it was told to end."""
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and wait; how they ended is read from them."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _now() -> datetime:
    return datetime.now(UTC)


async def run(configured: config.Config) -> Exit:
    """The operator, inside a running event loop."""
    return await Operator(configured).run()


def main() -> None:
    """Entry point; the exit code says why it ended (:class:`Exit`)."""
    try:
        configured = config.load(os.environ)
    except config.ConfigError as error:
        print(f"slm-operator: {error}", file=sys.stderr)
        sys.exit(Exit.CONFIG)
    log.configure(configured.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run(configured)))


if __name__ == "__main__":
    main()
