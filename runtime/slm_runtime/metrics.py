"""What Prometheus sees: latencies as the API process measures them, totals as the engine counts them."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from slm_contract import metrics as names
from slm_runtime.engine.messages import Stats

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_FIRST_TOKEN: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_INTER_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5)
_WHOLE: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Gauges(NamedTuple):
    """Read at each scrape."""

    stats: Stats
    restarts: int
    ready: bool
    loaded: bool


class _EngineCollector(Collector):
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterator[Metric]:
        stats, restarts, ready, loaded = self._read()
        yield CounterMetricFamily(names.PROMPT_TOKENS, "Prompt tokens taken in.", stats.prompt_tokens)
        yield CounterMetricFamily(names.GENERATED_TOKENS, "Tokens generated.", stats.generated_tokens)
        yield CounterMetricFamily(
            names.PREFIX_TOKENS, "Prompt tokens that the prefix cache spared.", stats.cached_tokens
        )
        yield CounterMetricFamily(
            names.DRAFTED_TOKENS, "Tokens guessed ahead of their step.", stats.drafted_tokens
        )
        yield CounterMetricFamily(
            names.ACCEPTED_TOKENS, "Guessed tokens that came true.", stats.accepted_tokens
        )
        yield CounterMetricFamily(
            names.PREEMPTIONS, "Sequences that had to give way to older ones.", stats.preemptions
        )
        yield CounterMetricFamily(names.STEPS, "Steps of the engine.", stats.steps)
        yield CounterMetricFamily(
            names.STEP_SECONDS, "Spent in the step loop, engine included.", stats.busy_seconds
        )
        yield CounterMetricFamily(
            names.ENGINE_SECONDS, "Spent in the engine's own step.", stats.engine_seconds
        )
        yield CounterMetricFamily(names.ENGINE_RESTARTS, "Deaths of the engine process.", restarts)
        yield GaugeMetricFamily(names.RUNNING, "Sequences being decoded.", stats.running)
        yield GaugeMetricFamily(names.WAITING, "Requests waiting for their turn.", stats.waiting)
        yield GaugeMetricFamily(names.KV_CELLS, "Cells of the KV cache.", stats.kv_cells)
        yield GaugeMetricFamily(
            names.KV_CELLS_USED, "Cells held by running sequences and the prefix cache.", stats.kv_cells_used
        )
        yield GaugeMetricFamily(names.READY, "1 where the pod is ready.", int(ready))
        yield GaugeMetricFamily(names.MODEL_LOADED, "1 where the model is in memory.", int(loaded))


class Metrics:
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(read))
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            names.REQUESTS,
            "Requests by API, route and status code.",
            ["api", "route", "code"],
            registry=self._registry,
        )
        self.first_token = self._histogram(
            names.TIME_TO_FIRST_TOKEN, "From a request's arrival to its first token.", _FIRST_TOKEN
        )
        self.inter_token = self._histogram(names.INTER_TOKEN, "Between the tokens of a choice.", _INTER_TOKEN)
        self.request_seconds = self._histogram(
            names.REQUEST_SECONDS, "From a request's arrival to its last token.", _WHOLE
        )
        self.queue_seconds = self._histogram(
            names.QUEUE_SECONDS, "What a request waited for its turn.", _WHOLE
        )

    def count(self, route: str, status: int) -> None:
        """Count an answered request. `route` is the router's name for it, so its values are bounded."""
        self._requests.labels(_api_of(route), route, str(status)).inc()

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)


def _api_of(route: str) -> str:
    if route.startswith("/v1/"):
        return "openai"
    return "ollama" if route.startswith("/api/") else "other"
