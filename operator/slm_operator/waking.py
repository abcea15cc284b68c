"""Whom a change concerns, and how soon: events that belong together are one turn, nodes wake only who depends on them."""

import asyncio
import math
from collections.abc import Iterable
from typing import Final

from slm_operator.queue import Lane, WorkQueue
from slm_operator.store import Change, Key, Store

REPORT_SETTLE: Final = 1.0
"""Seconds: a pod that becomes ready changes pod, ReplicaSet and Deployment in a row, and is one status."""
COMPLETE_SETTLE: Final = 0.1
"""Seconds once the Deployment is complete, which is the last of that row: the pod's report may still be on its way."""
NODES_SETTLE: Final = 1.0
"""Seconds: a node that joins changes several times in a row, and many nodes change together. Doubled while they go on."""
LONGEST_NODES_SETTLE: Final = 15.0
SLICE: Final = 100
"""SLMDeployments that are queued before others get a turn."""


class Waker:
    """Queues SLMDeployments for what has changed."""

    def __init__(self, store: Store, queue: WorkQueue[Key]) -> None:
        self._store = store
        self._queue = queue
        self._indifferent: set[Key] = set()
        """Whom no change of the nodes concerns, by their last decision."""
        self._nodes_changed: asyncio.TimerHandle | None = None
        self._settle = NODES_SETTLE
        self._woke = -math.inf

    def wake(self, changes: Iterable[Change]) -> None:
        """Queue what the changes concern."""
        for change in changes:
            if change.key is not None and change.urgent:
                self._queue.add(change.key)
            elif change.key is not None:
                self._queue.add_after(change.key, COMPLETE_SETTLE if change.complete else REPORT_SETTLE)
            elif self._nodes_changed is None:
                loop = asyncio.get_running_loop()
                self._nodes_changed = loop.call_later(self._settle_nodes(), self.wake_for_nodes)

    def heed(self, key: Key, *, watches_nodes: bool) -> None:
        """Remember whether nodes concern it, as was just decided."""
        if watches_nodes:
            self._indifferent.discard(key)
        else:
            self._indifferent.add(key)

    def wake_for_nodes(self) -> None:
        """However many nodes have changed meanwhile, it is one wake."""
        self._nodes_changed = None
        self._woke = asyncio.get_running_loop().time()
        self._wake_slice([key for key in self._store.deployments() if key not in self._indifferent])

    def _settle_nodes(self) -> float:
        """Seconds until a change of the nodes wakes: ever more while one follows the other, as when all are labelled."""
        quiet = asyncio.get_running_loop().time() - self._woke > self._settle
        longer = min(LONGEST_NODES_SETTLE, 2 * self._settle)
        self._settle = NODES_SETTLE if quiet else longer
        return self._settle

    def _wake_slice(self, keys: list[Key]) -> None:
        for key in keys[:SLICE]:
            self._queue.add(key, Lane.REPORT)
        if len(keys) > SLICE:
            asyncio.get_running_loop().call_soon(self._wake_slice, keys[SLICE:])
