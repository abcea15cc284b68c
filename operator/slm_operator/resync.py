"""Lists everything now and then, and corrects the store by it.

Watches alone can lose a deletion: one that happens while a watch lists anew is never told. So all is listed
before the first decision, shortly after a watch began anew, and every ten minutes; and once in a while every
deployment is looked at even though nothing seems to have changed.
"""

import asyncio
import random
from logging import getLogger
from typing import Final

from slm_operator.cluster import errors
from slm_operator.cluster.kept import kept_object
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import SERVICE_MONITOR, WATCHED, Resource
from slm_operator.queue import Lane, WorkQueue
from slm_operator.reconcile import Reconciler
from slm_operator.snapshot import Document
from slm_operator.store import Change, Key, Store

SETTLE: Final = 5.0
"""Seconds after a watch began anew: all kinds do so at about the same time."""
SPREAD: Final = 0.2
"""Share of the interval by which it varies, so that operators don't list in step."""
RETRY: Final = 5.0

log = getLogger(__name__)


class Resync:
    """Keeps the store true; runs beside the watches.

    Parameters
    ----------
    namespaces
        Empty: the whole cluster.
    interval
        Seconds between two lists of everything.
    watched
        Kinds to list.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        queue: WorkQueue[Key],
        reconciler: Reconciler,
        namespaces: tuple[str, ...],
        interval: float,
        watched: tuple[Resource, ...] = WATCHED,
        jitter: random.Random | None = None,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._queue = queue
        self._reconciler = reconciler
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._interval = interval
        self._watched = watched
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._asked = asyncio.Event()
        self._listed = 0.0

    @property
    def age(self) -> float:
        """Seconds since everything was last listed."""
        return asyncio.get_running_loop().time() - self._listed

    def ask(self) -> None:
        """A watch began anew and may have missed something: list soon."""
        self._asked.set()

    async def list_all(self) -> list[Change]:
        """Bring the whole store up to date.

        Raises
        ------
        ClusterError
            Something can't be listed; what was listed before it counts.
        """
        self._store.monitoring = await self._cluster.serves(SERVICE_MONITOR)
        changes: list[Change] = []
        for resource in (*self._watched, SERVICE_MONITOR) if self._store.monitoring else self._watched:
            for namespace in self._namespaces if resource.namespaced else (None,):
                changes += await self._list(resource, namespace)
        self._listed = asyncio.get_running_loop().time()
        return changes

    async def _list(self, resource: Resource, namespace: str | None) -> list[Change]:
        def keep(document: Document) -> Document:
            return kept_object(resource, document)

        return self._store.replace(resource, namespace, await self._cluster.list(resource, namespace, keep))

    async def start(self) -> None:
        """The first list, and every deployment queued: from here on the workers may start.

        What passes by itself is waited for: a CRD that was just installed is answered with 429 for a while.

        Raises
        ------
        ClusterError
            Something can't be listed, and asking again won't help.
        """
        while True:
            try:
                await self.list_all()
                break
            except errors.RetryError as error:
                log.warning("can't list everything yet", extra={"cause": str(error)})
                await asyncio.sleep(error.retry_after or RETRY)
        for key in self._store.deployments():
            self._queue.add(key, Lane.ACT)

    async def run(self) -> None:
        """List for ever."""
        while True:
            asked = await self._wait()
            try:
                changes = await self.list_all()
            except errors.ClusterError as error:
                log.warning("can't list everything", extra={"cause": str(error)})
                await asyncio.sleep(RETRY)
                self.ask()
                continue
            self._reconciler.wake(changes)
            if not asked:
                for key in self._store.deployments():
                    self._queue.add(key, Lane.REPORT)

    async def _wait(self) -> bool:
        """Until the next list is due; True when it was asked for."""
        interval = self._interval * self._jitter.uniform(1 - SPREAD, 1 + SPREAD)
        try:
            async with asyncio.timeout(interval):
                await self._asked.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(SETTLE)
        self._asked.clear()
        return True
