"""Reads `/report` from pods in which something is going on, and wakes their deployments when it changed.

A pod is asked while it isn't ready, and once more when it is, for what it measured; pods at rest are left
alone. What comes back is untrusted: small, in time, of the contract's shape, or it counts as nothing. A pod
that can't be reached only leaves fields unknown, and is asked ever more rarely.

Each pod has its own next time, and asking keeps to a pace instead of a number of slots: who doesn't answer
keeps nobody waiting, and thousands of pods that start together are asked more rarely, not all at once.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from logging import getLogger
from typing import Final

import aiohttp
from pydantic import ValidationError

from slm_contract.places import OPS_PORT, REPORT_PATH
from slm_contract.report import RuntimeReport
from slm_operator.cluster.resources import SLM_DEPLOYMENT
from slm_operator.crd.names import COMPONENT_LABEL, COPIES
from slm_operator.crd.spec import Recover
from slm_operator.queue import WorkQueue
from slm_operator.snapshot import Document
from slm_operator.store import Key, Store

TIMEOUT: Final = 2.0
LIMIT: Final = 64 * 1024
"""Bytes."""
PACE: Final = 1 / 150
"""Seconds between two questions: about a tenth of a core."""
SETTLE: Final = 0.5
"""Seconds that a report waits for others, and for the Deployment that changes with its pod."""
AT_ONCE: Final = int(TIMEOUT / PACE)
"""Questions in flight, if nobody answers."""
LONGEST_PAUSE: Final = 60.0
SLICE: Final = 50
"""Deployments that are looked at before others get a turn."""

Fetch = Callable[[str], Awaitable[bytes | None]]
"""Pod address to body; None for anything but an answer in time and size."""

log = getLogger(__name__)


@dataclass
class _Pod:
    """One that is worth asking."""

    key: Key
    uid: str
    address: str
    ready: bool
    due: float = 0.0
    """When it is asked next; infinite while it is being asked."""
    failures: int = 0
    """In a row."""


@dataclass
class _Turns:
    """Who is asked next, by time: two lines that take turns, so that the silent ones get half of the pace at most."""

    lines: tuple[list[tuple[float, str]], list[tuple[float, str]]] = field(default_factory=lambda: ([], []))
    last: int = 0

    def add(self, pod: _Pod) -> None:
        heappush(self.lines[pod.failures > 0], (pod.due, pod.uid))

    def take(self, pods: dict[str, _Pod], now: float) -> _Pod | None:
        """One that is due. A pod that was given another time left its old place behind, which is passed over."""
        for number in (1 - self.last, self.last):
            line = self.lines[number]
            while line and line[0][0] <= now:
                due, uid = heappop(line)
                if uid in pods and pods[uid].due == due:
                    self.last = number
                    return pods[uid]
        return None

    def next(self) -> float:
        return min((line[0][0] for line in self.lines if line), default=math.inf)


class Reports:
    """Asks; what it learns is in the store.

    Parameters
    ----------
    interval
        Seconds between two readings of the same pod.
    """

    def __init__(self, *, store: Store, queue: WorkQueue[Key], fetch: Fetch, interval: float) -> None:
        self._store = store
        self._queue = queue
        self._fetch = fetch
        self._interval = interval
        self._pods: dict[str, _Pod] = {}
        self._by_key: dict[Key, set[str]] = {}
        self._touched = store.follow()
        self._turns = _Turns()
        self._planned = asyncio.Event()

    async def run(self) -> None:
        """Ask for ever."""
        now = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            while True:
                pod = self._turns.take(self._pods, now())
                if pod is None:
                    await self._wait()
                    continue
                pod.due = math.inf
                tasks.create_task(self._ask(pod))
                await asyncio.sleep(PACE)

    async def _wait(self) -> None:
        """Until somebody is due."""
        self._planned.clear()
        due = self._turns.next()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(None if math.isinf(due) else due):
                await self._planned.wait()

    async def _follow(self) -> None:
        """Keep the set of pods that are worth asking."""
        while True:
            await self._touched.wait()
            for number, key in enumerate(self._touched.take(), 1):
                self._look_at(key)
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def _look_at(self, key: Key) -> None:
        worth = [pod for pod in self._store.pods(key) if self._is_worth(key, pod)]
        uids = {pod["metadata"]["uid"] for pod in worth}
        for uid in self._by_key.pop(key, set()) - uids:
            del self._pods[uid]
        for pod in worth:
            uid, address, ready = (
                pod["metadata"]["uid"],
                pod["status"]["podIP"],
                _is_true(pod["status"], "Ready"),
            )
            known = self._pods.get(uid)
            if known is None or (known.address, known.ready) != (address, ready):
                self._pods[uid] = _Pod(key, uid, address, ready)
                self._plan(self._pods[uid], 0.0)
        if uids:
            self._by_key[key] = uids

    def _plan(self, pod: _Pod, pause: float) -> None:
        pod.due = asyncio.get_running_loop().time() + pause
        self._turns.add(pod)
        self._planned.set()

    def _is_worth(self, key: Key, pod: Document) -> bool:
        metadata, status = pod["metadata"], pod.get("status") or {}
        if (metadata.get("labels") or {}).get(COMPONENT_LABEL) == COPIES:
            return False
        if metadata.get("deletionTimestamp") or not status.get("podIP"):
            return False
        if status.get("phase") not in {"Pending", "Running"}:
            return False
        if not _is_true(status, "Ready"):
            return True
        if self._idleness_counts(key) or self._has_canaries(key):
            return True
        report = self._store.report(metadata["uid"])
        return not self._at_rest(key) if report is None else report.phase != "Ready"

    def _idleness_counts(self, key: Key) -> bool:
        """Whether it is to be known, also at rest, that nobody asks the model for anything."""
        spec = (self._store.get(SLM_DEPLOYMENT, *key) or {}).get("spec") or {}
        fallback = (spec.get("hardware") or {}).get("fallback") or {}
        return bool(fallback.get("recover") == Recover.WHEN_IDLE)

    def _has_canaries(self, key: Key) -> bool:
        """Whether a pod at rest has something to tell: what its model answered."""
        spec = (self._store.get(SLM_DEPLOYMENT, *key) or {}).get("spec") or {}
        return bool((spec.get("observability") or {}).get("canary"))

    def _at_rest(self, key: Key) -> bool:
        resource = self._store.get(SLM_DEPLOYMENT, *key) or {}
        status = resource.get("status") or {}
        generation = (resource.get("metadata") or {}).get("generation")
        measured = bool(status.get("performance"))
        return status.get("observedGeneration") == generation and _is_true(status, "Ready") and measured

    async def _ask(self, pod: _Pod) -> None:
        report = parse(await self._fetch(pod.address))
        if self._pods.get(pod.uid) is not pod:
            return
        if report is None:
            pod.failures += 1
            self._plan(pod, min(LONGEST_PAUSE, self._interval * 2.0 ** min(pod.failures, 10)))
            return
        pod.failures = 0
        if self._store.reported(pod.key, pod.uid, report):
            self._queue.add_after(pod.key, SETTLE)
        self._plan(pod, LONGEST_PAUSE if pod.ready and self._at_rest(pod.key) else self._interval)


def parse(body: bytes | None) -> RuntimeReport | None:
    """A report, or None for whatever isn't one, such as one with NaN, which can be read but not written again."""
    try:
        if body is None:
            return None
        return RuntimeReport.model_validate_json(RuntimeReport.model_validate_json(body).to_json())
    except ValidationError as error:
        log.info("not a report", extra={"problems": error.error_count()})
        return None


class HttpFetch:
    """Fetches reports by HTTP: no redirects, no proxy, no more than :data:`LIMIT` bytes."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, address: str) -> bytes | None:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{OPS_PORT}{REPORT_PATH}"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                body = await response.content.read(LIMIT + 1)
                while len(body) <= LIMIT and not response.content.at_eof():
                    body += await response.content.read(LIMIT + 1 - len(body))
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        return body if len(body) <= LIMIT else None


def session() -> aiohttp.ClientSession:
    """A session for :class:`HttpFetch`."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def _is_true(status: Document, condition: str) -> bool:
    conditions = status.get("conditions") or ()
    return any(each.get("type") == condition and each.get("status") == "True" for each in conditions)
