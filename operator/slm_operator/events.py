"""Events on the SLMDeployment, where `kubectl describe` shows them: few, late if need be, and missed by nobody's work.

They are posted one at a time by a task of their own. What the API server refuses, what overflows and what would be more than
a few an hour is dropped: the status says it all.
"""

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime
from logging import getLogger
from typing import Any, Final

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import EVENT
from slm_operator.crd.names import FIELD_MANAGER
from slm_operator.crd.resource import parse_status
from slm_operator.snapshot import Document
from slm_operator.status.events import Event, events

PACE: Final = 0.05
"""Seconds between two: in a burst of new SLMDeployments their objects go before."""
WAITING: Final = 2000
"""Events that wait to be posted, at most."""
HOUR: Final = 3600.0
IN_AN_HOUR: Final = 6
"""Of one SLMDeployment, and none of them twice."""

log = getLogger(__name__)


class Budget:
    """What was posted within the last hour, by the uid of what it is about."""

    def __init__(self) -> None:
        self._posted: dict[str, dict[int, float]] = {}
        """When, by the event's hash; whoever was asked for last comes last."""

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._posted)

    def admits(self, uid: str, event: Event, now: float) -> bool:
        """Whether it may be posted; then it counts as posted."""
        mine = {each: time for each, time in self._posted.pop(uid, {}).items() if now - time < HOUR}
        admitted = hash(event) not in mine and len(mine) < IN_AN_HOUR
        if admitted:
            mine[hash(event)] = now
        self._posted[uid] = mine
        self._forget(now)
        return admitted

    def _forget(self, now: float) -> None:
        while self._posted:
            uid, mine = next(iter(self._posted.items()))
            if any(now - time < HOUR for time in mine.values()):
                return
            del self._posted[uid]


class Events:
    """Posts them.

    Parameters
    ----------
    instance
        Name of this process.
    """

    def __init__(self, *, cluster: Cluster, clock: Callable[[], datetime], instance: str) -> None:
        self._cluster = cluster
        self._clock = clock
        self._instance = instance
        self._budget = Budget()
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING)

    def tell(self, before: Document, after: Document) -> None:
        """An SLMDeployment's status was written: what that tells is posted when there is time."""
        now = asyncio.get_running_loop().time()
        for event in events(parse_status(before), parse_status(after)):
            if not self._waiting.full() and self._budget.admits(after["metadata"]["uid"], event, now):
                self._waiting.put_nowait(self._document(event, after))

    async def run(self) -> None:
        """Post for ever."""
        while True:
            document = await self._waiting.get()
            try:
                await self._cluster.create(document)
            except errors.ClusterError as error:
                log.debug("event not posted", extra={"reason": document["reason"], "cause": str(error)})
            await asyncio.sleep(PACE)

    def _document(self, event: Event, about: Document) -> dict[str, Any]:
        metadata = about["metadata"]
        now = self._clock().isoformat(timespec="seconds").replace("+00:00", "Z")
        identity = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{metadata['name']}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], **identity},
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
        }
