"""`/healthz`, `/readyz` and `/metrics` on one port.

Alive means that progress is made, not that the queue is short: a burst on a slow machine takes its time, and a
restart would only add to it; nor does a restart help against an API server that refuses. Ready means: what the operator
is for, it does now. One that waits behind another holder of the Lease is ready too, or a rollout of it would never end;
one that can't ask for the Lease isn't.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import thread_time
from typing import Final, NamedTuple

from aiohttp import web

from slm_operator.metrics import Metrics

TICK: Final = 0.1
LAG_KEPT: Final = 60.0
"""Seconds of which the longest lag is told: more than Prometheus takes from one scrape to the next."""
STALL_LIMIT: Final = 300.0
"""Seconds in which at least one of the keys that wait must be finished; no request lasts a tenth of it."""
MISSED_LISTS: Final = 3.0
"""In how many intervals a list must have been tried."""


@dataclass(frozen=True)
class Vitals:
    """What the probes look at, read when they ask."""

    acting: Callable[[], bool]
    """This process holds the Lease and its workers run."""
    waiting: Callable[[], bool]
    """This process waits behind another holder of the Lease."""
    hindrance: Callable[[], str | None]
    """Why the Lease can't be asked for."""
    list_stalled: Callable[[], float]
    """Seconds since a list was last tried."""
    queue_stalled: Callable[[], float]
    """Seconds in which no key was finished although one waits."""
    list_interval: float


class _Lag(NamedTuple):
    at: float
    late: float
    own: float
    """At most so much of it was our own doing: what the thread computed."""


class Health:
    """The HTTP side of the operator, and the measure of its event loop."""

    def __init__(self, vitals: Vitals, metrics: Metrics) -> None:
        self._vitals = vitals
        self._metrics = metrics
        self._lags: deque[_Lag] = deque()
        metrics.gauge(
            "event_loop_lag_seconds",
            "How late the event loop was at most in the last minute",
            lambda: max((each.late for each in self._lags), default=0.0),
        )
        metrics.gauge(
            "event_loop_block_seconds",
            "For how long the operator itself held its event loop at most in the last minute; the rest is want of CPU",
            lambda: max((each.own for each in self._lags), default=0.0),
        )

    def problem(self) -> str | None:
        """Why the process should be restarted; None where it is well: it turns the event loop, or nobody would answer."""
        if not self._vitals.acting():
            return None
        limit = MISSED_LISTS * self._vitals.list_interval
        if (stalled := self._vitals.list_stalled()) > limit:
            return f"no list was tried for {stalled:.0f} s (limit {limit:.0f} s)"
        if (stalled := self._vitals.queue_stalled()) > STALL_LIMIT:
            return f"deployments wait, and none was finished for {stalled:.0f} s (limit {STALL_LIMIT:.0f} s)"
        return None

    async def serve(self, port: int) -> None:
        """Answer probes until cancelled.

        Raises
        ------
        OSError
            The port is in use.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, port=port).start()
            await self._measure_lag()
        finally:
            await runner.cleanup()

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, computed = loop.time() + TICK, thread_time()
            await asyncio.sleep(TICK)
            now = loop.time()
            late = max(0.0, now - due)
            self._lags.append(_Lag(now, late, min(late, thread_time() - computed)))
            while self._lags[0].at < now - LAG_KEPT:
                self._lags.popleft()

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self.problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._vitals.acting():
            return web.Response(text="acting")
        if self._vitals.waiting():
            return web.Response(text="waiting for the lease")
        return web.Response(text=self._vitals.hindrance() or "starting", status=503)

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )
