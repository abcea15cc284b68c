"""What the operator tells Prometheus about itself."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

RECONCILES: Final = "slm_operator_reconciles"
API_REQUEST_SECONDS: Final = "slm_operator_api_request_seconds"
WATCH_EVENTS: Final = "slm_operator_watch_events"
CONDITION: Final = "slm_operator_deployment_condition"
GAUGES: Final = "slm_operator_"
"""What the names of values begin with that are read when Prometheus asks."""
QUEUE_DEPTH_ACT: Final = f"{GAUGES}queue_depth_act"
QUEUE_DEPTH_REPORT: Final = f"{GAUGES}queue_depth_report"
QUEUE_OLDEST: Final = f"{GAUGES}queue_oldest_seconds"
LIST_AGE: Final = f"{GAUGES}list_age_seconds"
LEADER: Final = f"{GAUGES}leader"
LOOP_LAG: Final = f"{GAUGES}event_loop_lag_seconds"
LOOP_BLOCK: Final = f"{GAUGES}event_loop_block_seconds"
Conditions = Iterable[tuple[tuple[str, str], Iterable[tuple[str, bool]]]]
"""By namespace and name: types of conditions, and whether they are true."""

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _Conditions(Collector):
    def __init__(self, read: Callable[[], Conditions]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterator[Metric]:
        # `namespace` would be that of the operator, which is scraped.
        family = GaugeMetricFamily(
            CONDITION,
            "1 where a condition of an SLMDeployment is true",
            labels=["deployment_namespace", "deployment", "type"],
        )
        for (namespace, name), conditions in self._read():
            for kind, true in conditions:
                family.add_metric([namespace, name, kind], float(true))
        yield family


class Metrics:
    """One registry an operator; nothing is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._reconciles = Counter(
            RECONCILES,
            "Turns of the reconcile loop by result",
            ["result"],
            registry=self.registry,
        )
        self._requests = Histogram(
            API_REQUEST_SECONDS,
            "Requests to the API server; code 0 is no answer",
            ["method", "resource", "code"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._events = Counter(
            WATCH_EVENTS,
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
        Gauge(f"{GAUGES}{name}", documentation, registry=self.registry).set_function(read)

    def conditions(self, read: Callable[[], Conditions]) -> None:
        """Conditions of SLMDeployments, read when Prometheus asks."""
        self.registry.register(_Conditions(read))

    def render(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
