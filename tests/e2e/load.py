"""A steady load through a Service: every request is sent on time, whatever became of those before, and each counts."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import aiohttp
import pytest

from tests.e2e.site import Namespace

RATE = 20
"""Requests a second."""
PATIENCE = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True)
class Answer:
    sent: float
    """By :func:`time.monotonic`."""
    seconds: float
    outcome: str
    """`200`, or what came in its place."""

    @property
    def failed(self) -> bool:
        return self.outcome != "200"


@dataclass
class Load:
    """What became of the requests so far."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def failures(self) -> list[Answer]:
        return [each for each in self.answers if each.failed]

    def failures_outside(self, begin: float, end: float) -> list[Answer]:
        """Those of requests that were not under way at some time in the window."""
        return [
            each for each in self.failures if not (each.sent <= end and each.sent + each.seconds >= begin)
        ]

    def __str__(self) -> str:
        seconds = sorted(each.seconds for each in self.answers)
        counts = ", ".join(
            f"{count} x {outcome}"
            for outcome, count in Counter(each.outcome for each in self.answers).most_common()
        )
        first = self.answers[0].sent if self.answers else 0.0
        when = ", ".join(f"{each.sent - first:.1f}" for each in self.failures[:20])
        return (
            f"{counts}; median {1000 * seconds[len(seconds) // 2]:.0f} ms, longest {seconds[-1]:.1f} s"
            + (f"; failed at second {when}" if when else "")
            if seconds
            else "no request was sent"
        )


@contextmanager
def steady_load(ns: Namespace, name: str, *, begin: int = RATE) -> Iterator[Load]:
    """Short chats at :data:`RATE`, each over a connection of its own, as the Service spreads connections and not requests.

    Parameters
    ----------
    begin
        How many must have been answered well before the block runs.
    """
    if ns.site.cluster.kind == "kubeconfig":
        pytest.skip(
            "this machine reaches Services of this cluster by port-forward only, which holds to one pod"
        )
    key = ns.key(name)
    with ns.site.cluster.reach(ns.name, name, 8080) as address:
        load, stop = Load(), Event()
        sending = Thread(target=lambda: asyncio.run(_send(load, stop, address, key, name)), name="load")
        sending.start()
        try:
            ns.site.eventually(
                "the load is answered", lambda: sum(not each.failed for each in load.answers) >= begin
            )
            yield load
        finally:
            stop.set()
            sending.join()
            print(f"\n{name}: {load}")


async def _send(load: Load, stop: Event, address: str, key: str, name: str) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "Say a word."}], "max_tokens": 2}
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=PATIENCE, headers={"Authorization": f"Bearer {key}"}
        ) as session,
        asyncio.TaskGroup() as requests,
    ):
        due = time.monotonic()
        while not stop.is_set():
            requests.create_task(_ask(load, session, f"http://{address}/v1/chat/completions", body))
            due += 1 / RATE
            await asyncio.sleep(due - time.monotonic())


async def _ask(load: Load, session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> None:
    sent = time.monotonic()
    try:
        async with session.post(url, json=body) as response:
            await response.read()
            outcome = str(response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome = f"{type(error).__name__} {error}".strip()
    load.answers.append(Answer(sent, time.monotonic() - sent, outcome))
