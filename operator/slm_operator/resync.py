"""Lists everything now and then, and corrects the store by it.

Watches alone can lose a deletion: one that happens while a watch lists anew is never told. So all is listed
before the first decision and every ten minutes, and a kind shortly after its watch began anew; and once in a
while every deployment is looked at even though nothing seems to have changed.

Lists are read in pages and at the newest revision. From the watch cache with `resourceVersion=0` they would come whole,
whatever the limit: of 5,000 nodes or pods some 80 MiB of JSON, in one piece on the event loop. They might be older
than what is known, too, and then find no deletion. Kubernetes 1.34 and newer serve such pages from the cache anyway.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from logging import getLogger
from typing import Final

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import (
    NAMESPACE,
    OPTIONAL,
    PROMETHEUS,
    PROMETHEUS_AGENT,
    SERVICE_MONITOR,
    WATCHED,
    Resource,
)
from slm_operator.queue import Lane, WorkQueue
from slm_operator.reconcile import Reconciler
from slm_operator.scrapers import Scraper, Scrapers, scraper_of
from slm_operator.snapshot import Document
from slm_operator.store import Change, Key, Store

SETTLE: Final = 5.0
"""Seconds without news of a watch that begins anew: it is through its list then, and what it lost is lost."""
LONGEST_SETTLE: Final = 60.0
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
    scrapers
        Whether to look who takes ServiceMonitors.
    optional
        Kinds to ask for, and to list where the cluster serves them.
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
        scrapers: bool = False,
        optional: tuple[Resource, ...] = OPTIONAL,
        jitter: random.Random | None = None,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._queue = queue
        self._reconciler = reconciler
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._interval = interval
        self._watched = watched
        self._scrapers = scrapers
        self._optional = optional
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._asked: set[Resource] = set()
        self._asking = asyncio.Event()
        self._listed = self._tried = 0.0

    @property
    def age(self) -> float:
        """Seconds since everything was last listed."""
        return asyncio.get_running_loop().time() - self._listed

    @property
    def stalled(self) -> float:
        """Seconds since a list was last tried, whatever came of it."""
        return asyncio.get_running_loop().time() - self._tried

    def ask(self, resource: Resource) -> None:
        """The watch of a kind began anew and may have missed something: list it when it is through."""
        self._asked.add(resource)
        self._asking.set()

    async def list_all(self) -> list[Change]:
        """Bring the whole store up to date.

        Raises
        ------
        ClusterError
            Something can't be listed; what was listed before it counts.
        """
        served = [each for each in self._optional if await self._serves(each)]
        self._store.found_served(each.kind for each in served)
        if self._scrapers and SERVICE_MONITOR in served:
            self._store.found_scrapers(await self._look_for_scrapers())
        kinds = (*self._watched, *(each for each in served if each.listable))
        changes = [change for resource in kinds for change in await self._list(resource)]
        self._listed = asyncio.get_running_loop().time()
        return changes

    async def _look_for_scrapers(self) -> Scrapers | None:
        """Of the whole cluster, wherever SLMDeployments are served: Prometheus has a namespace of its own."""
        found: list[Scraper] = []
        try:
            for kind in (PROMETHEUS, PROMETHEUS_AGENT):
                with suppress(errors.MissingError):
                    found += (await self._cluster.list(kind, None, scraper_of)).items
            namespaces = await self._cluster.list(NAMESPACE, None, _name_and_labels)
        except errors.ForbiddenError as error:
            log.info("can't see who takes ServiceMonitors", extra={"cause": str(error)})
            return None
        return Scrapers(tuple(found), dict(namespaces.items))

    async def _serves(self, resource: Resource) -> bool:
        """Whether the cluster serves a kind; what another server answers for keeps us from nothing while that is down."""
        try:
            return await self._cluster.serves(resource)
        except errors.ClusterError:
            if resource.listable:
                raise
            return resource.kind in self._store.served

    async def _list(self, resource: Resource) -> list[Change]:
        changes: list[Change] = []
        keep = partial(self._store.keep, resource)
        for namespace in self._namespaces if resource.namespaced else (None,):
            self._tried = asyncio.get_running_loop().time()
            listing = await self._cluster.list(resource, namespace, keep)
            changes += self._store.replace(resource, namespace, listing)
        return changes

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
        due = self._next()
        while True:
            asked = await self._wait(due)
            try:
                if asked:
                    for resource in asked:
                        self._reconciler.wake(await self._list(resource))
                    continue
                self._reconciler.wake(await self.list_all())
            except errors.ClusterError as error:
                log.warning("can't list everything", extra={"cause": str(error)})
                due = asyncio.get_running_loop().time() + RETRY
                continue
            due = self._next()
            for key in self._store.deployments():
                self._queue.add(key, Lane.REPORT)

    def _next(self) -> float:
        """When all is listed again."""
        pause = self._interval * self._jitter.uniform(1 - SPREAD, 1 + SPREAD)
        return asyncio.get_running_loop().time() + pause

    async def _wait(self, due: float) -> list[Resource]:
        """Until a list is due; the kinds that were asked for, or none when it is time for all of them."""
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(due):
                while not self._asked:
                    self._asking.clear()
                    await self._asking.wait()
        except TimeoutError:
            return []
        longest = now() + LONGEST_SETTLE
        with suppress(TimeoutError):
            while True:
                self._asking.clear()
                async with asyncio.timeout_at(min(now() + SETTLE, longest)):
                    await self._asking.wait()
        asked = list(self._asked)
        self._asked.clear()
        return asked


def _name_and_labels(namespace: Document) -> tuple[str, Mapping[str, str]]:
    metadata = namespace["metadata"]
    return metadata["name"], metadata.get("labels") or {}
