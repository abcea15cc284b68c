"""What both sides tell Prometheus, of every kind at least once."""

import asyncio
from pathlib import Path
from typing import Any

from slm_operator.__main__ import Operator
from slm_operator.cluster.resources import SLM_DEPLOYMENT
from slm_operator.config import Config
from slm_operator.health import Health
from slm_operator.settings import Settings
from slm_operator.store import CONDITIONS
from slm_runtime.engine.loading import MemoryBreakdown
from slm_runtime.engine.messages import Stats
from slm_runtime.metrics import Gauges, Metrics, ModelInfo

INFO = ModelInfo(
    model="tiny",
    format="GGUF",
    quantization="Q4_1",
    engine="llama.cpp",
    hardware_class="cpu",
    device="cpu (zen4, 2 threads)",
    version="1",
)


def of_runtime(*, vllm: str | None = None) -> str:
    """Of one that runs in this process."""
    stats = Stats(
        running=3, requests_running=2, waiting=1, kv_cells=1024, kv_cells_used=768, kv_cells_cached=512
    )
    pid = int(Path("/proc/self").resolve().name)
    gauges = Gauges(
        stats=stats,
        restarts=0,
        ready=True,
        loaded=True,
        pid=pid,
        memory=MemoryBreakdown(1, 2, 3, 4),
        info=INFO,
    )
    metrics = Metrics(lambda: gauges, vllm=vllm)
    metrics.count("/v1/models", 200)
    metrics.canary("capital", passed=True, seconds=1.0)
    for each in (metrics.first_token, metrics.inter_token, metrics.request_seconds, metrics.queue_seconds):
        each.observe(0.1)
    return metrics.exposition().decode()


def of_operator() -> str:
    """Of one that has just begun, and has done a little of everything."""
    settings = Settings(runtime_image="image", classes=())
    config = Config(
        settings=settings, lease_namespace="slm", lease_name="slm", identity="one", port=0, log_level="info"
    )
    operator = Operator(config)
    metrics = operator._metrics
    Health(operator._vitals(), metrics)
    metrics.reconciled("rest")
    metrics.requested("GET", "pods", 200, 0.1)
    metrics.event("Pod")
    operator._store.observe(SLM_DEPLOYMENT, deployment("tiny", **dict.fromkeys(CONDITIONS, "False")))

    async def render() -> bytes:
        return metrics.render()

    return asyncio.run(render()).decode()


def deployment(name: str, **conditions: str) -> dict[str, Any]:
    """An SLMDeployment that says this of itself."""
    return {
        "apiVersion": SLM_DEPLOYMENT.api_version,
        "kind": SLM_DEPLOYMENT.kind,
        "metadata": {"namespace": "demo", "name": name, "uid": name},
        "status": {"conditions": [{"type": kind, "status": truth} for kind, truth in conditions.items()]},
    }
