"""Reads the Events of Jobs that have no pod and of pods that have no sandbox: nothing but Events says why.

An object is asked about once it has been so for a while, and then ever more rarely for as long as it stays so; at rest
nothing is asked. It is the API server that is asked, which has other things to do: a few questions at a time, at a pace,
in turn. Events are never watched: a cluster has thousands of them.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Final

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import EVENT
from slm_operator.observed.clues import clue, needs_clue
from slm_operator.queue import WorkQueue
from slm_operator.snapshot import Document
from slm_operator.store import Key, Store

FIRST_AFTER: Final = {"Job": 3.0, "Pod": 20.0}
"""Seconds before the first question: most Jobs have a pod at once, and most pods a sandbox soon."""
FIRST_PAUSE: Final = 5.0
"""Seconds before the second; doubled each time."""
LONGEST_PAUSE: Final = 60.0
AT_ONCE: Final = 4
"""Questions in flight: the other connections are for who acts."""
PACE: Final = 0.2
"""Seconds that each of these pauses after an answer."""
BEFORE_ALL: Final = 5.0
"""Seconds that an operator which starts gives to what waits already."""
SETTLE: Final = 0.5
"""Seconds between two looks at what has changed, and before a deployment is decided anew."""
SLICE: Final = 50
"""Deployments that are looked at before others get a turn."""

log = getLogger(__name__)


@dataclass
class _Subject:
    """A Job or pod that is asked about."""

    key: Key
    uid: str
    name: str
    asked: int = 0
    """How often."""


class Clues:
    """Asks; what it learns is in the store."""

    def __init__(self, *, cluster: Cluster, store: Store, queue: WorkQueue[Key]) -> None:
        self._cluster = cluster
        self._store = store
        self._queue = queue
        self._touched = store.follow()
        self._subjects: dict[str, _Subject] = {}
        self._by_key: dict[Key, set[str]] = {}
        self._turns: WorkQueue[str] = WorkQueue()
        self._forbidden = False

    async def begin(self) -> None:
        """Ask about all that wait already: else a restart would take back what their status says, and say it again."""
        await self._look()
        waiting = iter(list(self._subjects.values()))
        with suppress(TimeoutError):
            async with asyncio.timeout(BEFORE_ALL), asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(self._ask_all(waiting))

    async def run(self) -> None:
        """Ask for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            for _ in range(AT_ONCE):
                tasks.create_task(self._take_turns())

    async def _follow(self) -> None:
        while True:
            await self._touched.wait()
            await self._look()
            await asyncio.sleep(SETTLE)

    async def _look(self) -> None:
        """Keep the set of those that are asked about."""
        for number, key in enumerate(self._touched.take(), 1):
            self._look_at(key)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _look_at(self, key: Key) -> None:
        objects = (*self._store.jobs(key), *self._store.pods(key))
        waiting = {str(each["metadata"]["uid"]): each for each in objects if needs_clue(each)}
        for uid in self._by_key.pop(key, set()) - waiting.keys():
            del self._subjects[uid]
            self._store.found_clue(uid, None)
        for uid in waiting.keys() - self._subjects.keys():
            document = waiting[uid]
            self._subjects[uid] = _Subject(key, uid, str(document["metadata"]["name"]))
            self._turns.add_after(uid, FIRST_AFTER[document["kind"]])
        if waiting:
            self._by_key[key] = set(waiting)

    async def _take_turns(self) -> None:
        while True:
            uid, _ = await self._turns.get()
            subject = self._subjects.get(uid)
            if subject is not None:
                await self._ask(subject)
            self._turns.done(uid)
            await asyncio.sleep(PACE)

    async def _ask_all(self, subjects: Iterator[_Subject]) -> None:
        for subject in subjects:
            await self._ask(subject)

    async def _ask(self, subject: _Subject) -> None:
        try:
            events = await self._events(subject)
        except errors.ClusterError as error:
            self._refused(error)
        else:
            # Asked about no longer, it may have a clue of nobody's to forget.
            if self._subjects.get(subject.uid) is subject:
                self._learn(subject, events)
        subject.asked += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(subject.asked - 1, 10))
        self._turns.add_after(subject.uid, pause)

    async def _events(self, subject: _Subject) -> list[dict[str, Any]]:
        about = f"involvedObject.uid={subject.uid}"
        listing = await self._cluster.list(EVENT, subject.key.namespace, _kept, field_selector=about)
        return listing.items

    def _learn(self, subject: _Subject, events: list[dict[str, Any]]) -> None:
        text = clue(events, subject.name, self._store.clue(subject.uid))
        if self._store.found_clue(subject.uid, text):
            self._queue.add_after(subject.key, SETTLE)

    def _refused(self, error: errors.ClusterError) -> None:
        """A Role of an earlier version may not list Events: then status says less."""
        if isinstance(error, errors.ForbiddenError) and not self._forbidden:
            self._forbidden = True
            log.warning(
                "can't read events, so why pods aren't made stays unsaid", extra={"cause": str(error)}
            )


def _kept(event: Document) -> dict[str, Any]:
    kept = ("metadata", "type", "reason", "message", "series", "lastTimestamp", "eventTime")
    return {field: event[field] for field in kept if field in event}
