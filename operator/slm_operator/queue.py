"""Which SLMDeployments are to be looked at, and when: one at a time each, deduplicated, with backoff.

Two lanes: in a burst what may have to act (a new Deployment) goes before what only has to report (a status).
A reporter that has waited long gets every other turn, so that no lane starves. Times are the event loop's, so
that a test which owns the loop owns the time.
"""

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_DELAY: Final = 0.2
"""Seconds before the first retry; doubled each time."""
LAST_DELAY: Final = 300.0
PATIENCE: Final = 30.0
"""Seconds that a reporter waits before it shares the turns with those that act."""


class Lane(IntEnum):
    """The smaller goes first."""

    ACT = 0
    REPORT = 1


@dataclass
class _Waiting:
    lane: Lane
    since: float


class WorkQueue(Generic[K]):
    """A keyed queue: a key that is added while it is being processed is processed once more afterwards.

    Parameters
    ----------
    jitter
        Spreads retries over 50 to 100 % of their delay.
    """

    def __init__(self, *, jitter: random.Random | None = None) -> None:
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._lanes: dict[Lane, deque[K]] = {lane: deque() for lane in Lane}
        self._waiting: dict[K, _Waiting] = {}
        self._processing: set[K] = set()
        self._again: dict[K, Lane] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._ready = asyncio.Event()
        self._progressed = 0.0
        self._shared_turn = False

    def add(self, key: K, lane: Lane = Lane.ACT) -> None:
        """Process the key as soon as a worker is free; of two lanes the more urgent one counts."""
        if key in self._processing:
            self._again[key] = min(lane, self._again.get(key, lane))
            return
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.lane <= lane:
            return
        since = asyncio.get_running_loop().time() if waiting is None else waiting.since
        self._waiting[key] = _Waiting(lane, since)
        # A key that changes lanes leaves its old place behind; `_take` passes over it.
        self._lanes[lane].append(key)
        self._ready.set()

    def add_after(self, key: K, seconds: float, lane: Lane = Lane.REPORT) -> None:
        """Process the key in a while; of several such wishes the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._ring, key, lane)

    def retry(self, key: K, lane: Lane = Lane.REPORT, *, at_least: float = 0.0) -> float:
        """Process the key again after a delay that doubles with each failure in a row.

        Returns
        -------
        float
            The delay in seconds, never below ``at_least``.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 16)) * self._jitter.uniform(0.5, 1.0)
        delay = max(delay, at_least)
        self.add_after(key, delay, lane)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> tuple[K, Lane]:
        """The next key; :meth:`done` has to follow.

        Others always get a turn first: thousands of keys at rest, which need no I/O, would hold the event loop until
        the last of them.
        """
        await asyncio.sleep(0)
        while (taken := self._take()) is None:
            self._ready.clear()
            await self._ready.wait()
        self._processing.add(taken[0])
        return taken

    def done(self, key: K) -> None:
        """The key was processed; if it was added meanwhile, it is due again."""
        self._progressed = asyncio.get_running_loop().time()
        self._processing.discard(key)
        lane = self._again.pop(key, None)
        if lane is not None:
            self.add(key, lane)

    def depth(self, lane: Lane) -> int:
        """Keys that wait in a lane."""
        return sum(waiting.lane is lane for waiting in self._waiting.values())

    def oldest(self) -> float:
        """Seconds that the longest waiting key has waited; 0 when none does."""
        now = asyncio.get_running_loop().time()
        return max((now - waiting.since for waiting in self._waiting.values()), default=0.0)

    def stalled(self) -> float:
        """Seconds in which no key was finished although one waited; 0 while none waits."""
        oldest = self.oldest()
        return min(oldest, asyncio.get_running_loop().time() - self._progressed)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being processed; delayed keys may be due later."""
        return not self._waiting and not self._processing

    def _take(self) -> tuple[K, Lane] | None:
        for lane in self._order():
            places = self._lanes[lane]
            while places:
                key = places.popleft()
                waiting = self._waiting.get(key)
                if waiting is not None and waiting.lane is lane:
                    del self._waiting[key]
                    return key, lane
        return None

    def _order(self) -> tuple[Lane, Lane]:
        """Which lane goes first this time."""
        reports = self._lanes[Lane.REPORT]
        head = self._waiting.get(reports[0]) if reports else None
        overdue = head is not None and asyncio.get_running_loop().time() - head.since > PATIENCE
        self._shared_turn = overdue and not self._shared_turn
        return (Lane.REPORT, Lane.ACT) if self._shared_turn else (Lane.ACT, Lane.REPORT)

    def _ring(self, key: K, lane: Lane) -> None:
        del self._timers[key]
        self.add(key, lane)
