"""Reads `/report` from pods in which something is going on, and wakes their deployments when it changed.

A pod is asked while it isn't ready, and once more when it is, for what it measured; pods at rest are left
alone. What comes back is untrusted: small, in time, of the contract's shape, or it counts as nothing. A pod
that can't be reached only leaves fields unknown, and is asked ever more rarely.
"""

import asyncio
from collections.abc import Awaitable, Callable
from logging import getLogger
from typing import Final

import aiohttp
from pydantic import ValidationError

from slm_contract.places import OPS_PORT, REPORT_PATH
from slm_contract.report import RuntimeReport
from slm_operator.cluster.resources import SLM_DEPLOYMENT
from slm_operator.queue import Lane, WorkQueue
from slm_operator.snapshot import Document
from slm_operator.store import Key, Store

TIMEOUT: Final = 2.0
LIMIT: Final = 64 * 1024
"""Bytes."""
AT_ONCE: Final = 8
LONGEST_PAUSE: Final = 60.0

Fetch = Callable[[str], Awaitable[bytes | None]]
"""Pod address to body; None for anything but an answer in time and size."""

log = getLogger(__name__)


class Reports:
    """One bounded task; what it learns is in the store by pod uid.

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
        self._silent: dict[tuple[str, bool], tuple[int, float]] = {}
        """By pod uid and whether it was Ready: one that has become so is asked at once."""

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.ask_all()
            await asyncio.sleep(self._interval)

    async def ask_all(self) -> None:
        """Ask each pod that is worth it, a few at once."""
        pods = self._store.pods()
        uids = {pod["metadata"]["uid"] for _, pod in pods}
        self._silent = {each: silence for each, silence in self._silent.items() if each[0] in uids}
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for key, pod in pods:
                if self._is_due(key, pod):
                    tasks.create_task(self._ask(key, pod, slots))

    def _is_due(self, key: Key, pod: Document) -> bool:
        metadata, status = pod["metadata"], pod.get("status") or {}
        if metadata.get("deletionTimestamp") or not status.get("podIP"):
            return False
        if status.get("phase") not in {"Pending", "Running"}:
            return False
        ready = _is_true(status, "Ready")
        _, next_try = self._silent.get((metadata["uid"], ready), (0, 0.0))
        if asyncio.get_running_loop().time() < next_try:
            return False
        if not ready:
            return True
        report = self._store.reports.get(metadata["uid"])
        if report is not None:
            return report.phase != "Ready"
        return not self._at_rest(key)

    def _at_rest(self, key: Key) -> bool:
        resource = self._store.get(SLM_DEPLOYMENT, *key) or {}
        status = resource.get("status") or {}
        generation = (resource.get("metadata") or {}).get("generation")
        measured = bool(status.get("performance"))
        return status.get("observedGeneration") == generation and _is_true(status, "Ready") and measured

    async def _ask(self, key: Key, pod: Document, slots: asyncio.Semaphore) -> None:
        uid = pod["metadata"]["uid"]
        known = (uid, _is_true(pod["status"], "Ready"))
        async with slots:
            body = await self._fetch(pod["status"]["podIP"])
        report = parse(body)
        if report is None:
            failures = self._silent.get(known, (0, 0.0))[0] + 1
            pause = min(LONGEST_PAUSE, self._interval * 2.0 ** min(failures, 10))
            self._silent[known] = (failures, asyncio.get_running_loop().time() + pause)
            return
        self._silent.pop(known, None)
        if self._store.reports.get(uid) != report:
            self._store.reports[uid] = report
            self._queue.add(key, Lane.REPORT)


def parse(body: bytes | None) -> RuntimeReport | None:
    """A report, or None for whatever isn't one."""
    try:
        return None if body is None else RuntimeReport.model_validate_json(body)
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
