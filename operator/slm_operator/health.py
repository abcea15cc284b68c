"""`/healthz`, `/readyz` and `/metrics` on one port.

Alive means: the event loop turns, the lists are fresh, and no key waits for ever. Ready means: what the
operator is for, it does now; one that waits for the Lease is ready too, or a rollout of it would never end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from slm_operator.metrics import Metrics

TICK: Final = 1.0
LAG_LIMIT: Final = 10.0
"""Seconds that the event loop may be late before the process counts as stuck."""
WAIT_LIMIT: Final = 600.0
"""Seconds that the oldest key may wait."""
MISSED_LISTS: Final = 3.0
"""How many intervals the last list may be old."""


@dataclass(frozen=True)
class Vitals:
    """What the probes look at, read when they ask."""

    acting: Callable[[], bool]
    """This process holds the Lease and its workers run."""
    waiting: Callable[[], bool]
    """This process waits for the Lease."""
    list_age: Callable[[], float]
    queue_age: Callable[[], float]
    list_interval: float


class Health:
    """The HTTP side of the operator, and the measure of its event loop."""

    def __init__(self, vitals: Vitals, metrics: Metrics) -> None:
        self._vitals = vitals
        self._metrics = metrics
        self._lag = 0.0
        metrics.gauge("event_loop_lag_seconds", "How late the event loop was", lambda: self._lag)

    def problem(self) -> str | None:
        """Why the process should be restarted; None where it is well."""
        if self._lag > LAG_LIMIT:
            return f"the event loop was {self._lag:.1f} s late"
        if not self._vitals.acting():
            return None
        limit = MISSED_LISTS * self._vitals.list_interval
        if (age := self._vitals.list_age()) > limit:
            return f"the last list is {age:.0f} s old (limit {limit:.0f} s)"
        if (age := self._vitals.queue_age()) > WAIT_LIMIT:
            return f"a deployment has waited for {age:.0f} s (limit {WAIT_LIMIT:.0f} s)"
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
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            self._lag = max(0.0, loop.time() - due)

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self.problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._vitals.acting():
            return web.Response(text="acting")
        if self._vitals.waiting():
            return web.Response(text="waiting for the lease")
        return web.Response(text="starting", status=503)

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )
