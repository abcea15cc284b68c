"""What the operator tells Prometheus about itself."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """One registry an operator; nothing is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._reconciles = Counter(
            "slm_operator_reconciles",
            "Turns of the reconcile loop by result",
            ["result"],
            registry=self.registry,
        )
        self._requests = Histogram(
            "slm_operator_api_request_seconds",
            "Requests to the API server; code 0 is no answer",
            ["method", "resource", "code"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._events = Counter(
            "slm_operator_watch_events",
            "Events from watches by kind; echoes of own writes included",
            ["kind"],
            registry=self.registry,
        )

    def reconciled(self, result: str) -> None:
        self._reconciles.labels(result).inc()

    def requested(self, method: str, resource: str, code: int, seconds: float) -> None:
        self._requests.labels(method, resource, str(code)).observe(seconds)

    def event(self, kind: str) -> None:
        self._events.labels(kind).inc()

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A value that is read when Prometheus asks."""
        Gauge(f"slm_operator_{name}", documentation, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
