"""What Prometheus sees: latencies as the API process measures them, totals as the engine counts them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from slm_contract import metrics as names
from slm_contract.aliases import BLOCK_TOKENS, VLLM, VLLM_CACHE_INFO
from slm_runtime.engine.loading import MemoryBreakdown
from slm_runtime.engine.messages import Stats

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_FIRST_TOKEN: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_INTER_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5)
_WHOLE: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(frozen=True)
class ModelInfo:
    """What is served, by what and on what: the labels of one metric, to be joined with others."""

    model: str
    format: str
    quantization: str
    engine: str
    hardware_class: str
    device: str
    version: str
    """The runtime's."""

    @property
    def labels(self) -> dict[str, str]:
        fields = dict(vars(self))
        fields["class"] = fields.pop("hardware_class")
        return fields


class Gauges(NamedTuple):
    """Read at each scrape."""

    stats: Stats
    restarts: int
    ready: bool
    loaded: bool
    pid: int | None = None
    """Of the engine process, while there is one."""
    memory: MemoryBreakdown | None = None
    """None before the first load, and while the model is unloaded."""
    info: ModelInfo | None = None
    """None before the first load."""


class _EngineCollector(Collector):
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterator[Metric]:
        now = self._read()
        stats = now.stats
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
        yield CounterMetricFamily(names.ENGINE_RESTARTS, "Deaths of the engine process.", now.restarts)
        yield GaugeMetricFamily(names.RUNNING, "Sequences being decoded.", stats.running)
        yield GaugeMetricFamily(names.REQUESTS_RUNNING, "Requests being answered.", stats.requests_running)
        yield GaugeMetricFamily(names.WAITING, "Requests waiting for their turn.", stats.waiting)
        yield GaugeMetricFamily(names.KV_CELLS, "Cells of the KV cache.", stats.kv_cells)
        yield GaugeMetricFamily(
            names.KV_CELLS_USED,
            "Cells that running sequences hold.",
            stats.kv_cells_used - stats.kv_cells_cached,
        )
        yield GaugeMetricFamily(
            names.KV_CELLS_EVICTABLE,
            "Cells that the prefix cache gives up when they are needed.",
            stats.kv_cells_cached,
        )
        yield GaugeMetricFamily(names.KV_USAGE, "Cells used of all cells, 0 to 1.", _usage(stats))
        yield GaugeMetricFamily(names.READY, "1 where the pod is ready.", int(now.ready))
        yield GaugeMetricFamily(names.MODEL_LOADED, "1 where the model is in memory.", int(now.loaded))
        memory = GaugeMetricFamily(names.MEMORY, "Bytes that the engine allocated, by kind.", labels=["kind"])
        if now.memory is not None:
            for kind in ("weights", "kv_cache", "compute", "snapshots"):
                memory.add_metric([kind], getattr(now.memory, kind))
        yield memory
        if now.info is not None:
            labels = now.info.labels
            info = GaugeMetricFamily(
                names.MODEL_INFO, "What is served, by what and on what.", labels=list(labels)
            )
            info.add_metric(list(labels.values()), 1)
            yield info


def _usage(stats: Stats) -> float:
    return (stats.kv_cells_used - stats.kv_cells_cached) / stats.kv_cells if stats.kv_cells else 0.0


class _VllmCollector(Collector):
    """The same samples under vLLM's names, with the model's name as its label."""

    def __init__(self, registry: CollectorRegistry, model: str, read: Callable[[], Gauges]) -> None:
        self._registry = registry
        self._label = {"model_name": model}
        self._read = read

    @override
    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            alias = VLLM.get(family.name)
            if alias is None:
                continue
            renamed = Metric(alias, family.documentation, family.type)
            for each in family.samples:
                ending = each.name.removeprefix(family.name)
                if ending != "_created":
                    renamed.add_sample(f"{alias}{ending}", {**each.labels, **self._label}, each.value)
            yield renamed
        blocks = str(self._read().stats.kv_cells // BLOCK_TOKENS)
        labels = {"block_size": str(BLOCK_TOKENS), "num_gpu_blocks": blocks, **self._label}
        cache = GaugeMetricFamily(VLLM_CACHE_INFO, "The KV cache, in blocks of tokens.", labels=list(labels))
        cache.add_metric(list(labels.values()), 1)
        yield cache


class Metrics:
    """All that the runtime tells.

    Parameters
    ----------
    vllm
        The model's name, where vLLM's names are asked for too.
    """

    def __init__(self, read: Callable[[], Gauges], *, vllm: str | None = None) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(read))
        ProcessCollector(registry=self._registry)
        # Where there is no such process, there are no such metrics.
        ProcessCollector(
            namespace=names.ENGINE_PROCESS.removesuffix("_process"),
            pid=lambda: read().pid or -1,
            registry=self._registry,
        )
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
        self._canaries = [
            Gauge(name, text, ["canary"], registry=self._registry)
            for name, text in (
                (names.CANARY_PASSED, "1 where a canary's last answer was as expected."),
                (names.CANARY_SECONDS, "What a canary's last answer took."),
                (names.CANARY_TIME, "When a canary last answered."),
            )
        ]
        self._aliases: CollectorRegistry | None = None
        if vllm is not None:
            self._aliases = CollectorRegistry()
            self._aliases.register(_VllmCollector(self._registry, vllm, read))

    def count(self, route: str, status: int) -> None:
        """Count an answered request. `route` is the router's name for it, so its values are bounded."""
        self._requests.labels(_api_of(route), route, str(status)).inc()

    def canary(self, name: str, *, passed: bool, seconds: float) -> None:
        """A canary has answered."""
        for gauge, value in zip(self._canaries, (passed, seconds, time.time()), strict=True):
            gauge.labels(name).set(value)

    def exposition(self) -> bytes:
        own = generate_latest(self._registry)
        return own if self._aliases is None else own + generate_latest(self._aliases)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)


def _api_of(route: str) -> str:
    if route.startswith("/v1/"):
        return "openai"
    return "ollama" if route.startswith("/api/") else "other"
