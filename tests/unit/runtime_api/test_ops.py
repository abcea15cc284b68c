import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from slm_contract import metrics as names
from slm_contract.config import HardwareConfig
from slm_contract.report import RuntimeReport
from slm_runtime.api.ops import ops_app
from slm_runtime.api.serving import LOOP_SECONDS, STALL_SECONDS
from slm_runtime.engine.client import EngineState
from slm_runtime.engine.loading import LoadFailureReason
from slm_runtime.listeners import listen
from slm_runtime.servers import ServerThread
from tests.unit.runtime_api.scripted import MODEL, Running, running

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


class Ops:
    """The operations port on its thread, and a client that blocks as kubelet's would."""

    def __init__(self, api: Running) -> None:
        listener = listen("127.0.0.1", 0)
        self.thread = ServerThread(ops_app(api.serving), listener, "ops")
        self.thread.start()
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False, timeout=5
        )

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def status(self, path: str) -> int:
        return self.get(path).status_code

    def close(self) -> None:
        self._http.close()
        self.thread.stop()


@pytest.fixture
def ops(api: Running) -> Iterator[Ops]:
    it = Ops(api)
    yield it
    it.close()


async def test_ready_is_ready(ops: Ops) -> None:
    assert [ops.status(path) for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 200]
    assert ops.status("/nope") == 404


async def test_it_answers_while_the_api_is_stuck(ops: Ops, api: Running) -> None:
    # This coroutine holds the API's event loop, so each answer here came from the other thread.
    assert ops.status("/livez") == 200
    api.serving.heartbeat = time.monotonic() - LOOP_SECONDS - 1
    assert "stuck" in ops.get("/livez").text


async def test_loading() -> None:
    async with running(ready=False) as api:
        ops = Ops(api)
        assert [ops.status(path) for path in ("/startupz", "/livez", "/readyz")] == [503, 200, 503]
        report = RuntimeReport.model_validate_json(ops.get("/report").content)
        assert report.phase == "Loading"
        assert report.performance is None
        ops.close()


async def test_draining_is_ready_for_who_has_no_other_pod(ops: Ops, api: Running) -> None:
    api.serving.draining = True
    assert [ops.status(path) for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 200]
    assert api.serving.report().phase == "Draining"


async def test_draining_because_of_a_stuck_engine_is_unready(ops: Ops, api: Running) -> None:
    api.serving.draining = True
    api.engine.stalled_seconds = 1000.0
    assert [ops.status(path) for path in ("/livez", "/readyz")] == [503, 503]


async def test_a_restarting_engine_is_unready_but_alive(ops: Ops, api: Running) -> None:
    api.engine.state, api.engine.failure = "Restarting", "signal 11"
    assert [ops.status(path) for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 503]
    assert "signal 11" in ops.get("/readyz").text


@pytest.mark.parametrize("state", ["Unloaded", "Reloading"])
async def test_an_unloaded_model_is_ready_and_said_to_be_unloaded(
    ops: Ops, api: Running, http: httpx.AsyncClient, state: EngineState
) -> None:
    assert RuntimeReport.model_validate_json(ops.get("/report").content).unloaded is False
    api.engine.state = state
    assert [ops.status(path) for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 200]
    report = RuntimeReport.model_validate_json(ops.get("/report").content)
    assert (report.phase, report.unloaded, report.memory) == ("Ready", True, None)
    assert report.acceleration is not None
    metrics = ops.get("/metrics").text
    assert f"{names.MODEL_LOADED} 0.0" in metrics
    assert f"{names.READY} 1.0" in metrics
    assert (await http.get("/api/ps")).json() == {"models": []}
    assert [(await http.get(path)).status_code for path in ("/health", "/api/health")] == [200, 200]


async def test_an_engine_that_makes_no_progress_is_dead(ops: Ops, api: Running) -> None:
    api.engine.stalled_seconds = STALL_SECONDS - 1
    assert ops.status("/livez") == 200
    api.engine.stalled_seconds = STALL_SECONDS + 1
    assert ops.status("/livez") == 503


@pytest.mark.parametrize("reason", ["EngineFailed", "OutOfMemory", "UnsupportedArchitecture", "InvalidModel"])
async def test_a_failed_engine(ops: Ops, api: Running, reason: LoadFailureReason) -> None:
    api.engine.fail("died three times", reason)
    assert [ops.status(path) for path in ("/startupz", "/livez", "/readyz")] == [503, 503, 503]
    report = RuntimeReport.model_validate_json(ops.get("/report").content)
    assert report.failure is not None
    assert report.failure.reason == reason
    assert report.phase == "Failed"


async def test_report(ops: Ops) -> None:
    report = RuntimeReport.model_validate_json(ops.get("/report").content)
    assert report.phase == "Ready"
    assert report.context_length == 2048
    assert report.memory is not None
    assert report.memory.kv_cache == 2
    assert report.performance is not None
    assert report.performance.load_seconds == 0.5
    assert report.acceleration is not None
    assert report.acceleration.device == "cpu (scripted, 1 thread)"
    assert not report.acceleration.degraded


@pytest.mark.parametrize("policy", ["Report", "Fail"])
async def test_degraded_acceleration(policy: str) -> None:
    hardware = HardwareConfig(provider="cuda", gpu_layers=-1, on_degraded=policy)
    async with running(hardware=hardware) as api:
        report = api.serving.report()
        assert report.acceleration is not None
        assert report.acceleration.degraded
        assert (api.serving.unready() is not None) == (policy == "Fail")
        assert (report.failure is not None) == (policy == "Fail")


async def test_metrics(ops: Ops, http: httpx.AsyncClient) -> None:
    await asyncio.gather(*(http.post("/v1/chat/completions", json=ASK) for _ in range(3)))
    await http.get("/v1/models/nope")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(ops.get("/metrics").text)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return samples[name, tuple(sorted(labels.items()))]

    asked = {"api": "openai", "route": "/v1/chat/completions", "code": "200"}
    assert value(f"{names.REQUESTS}_total", **asked) == 3
    # A path that a client made up is no label: the number of series stays bounded.
    assert value(f"{names.REQUESTS}_total", api="openai", route="/v1/models/{rest}", code="404") == 1
    assert value(f"{names.PROMPT_TOKENS}_total") == 70
    assert value(f"{names.GENERATED_TOKENS}_total") == 30
    assert value(names.READY) == 1
    assert value(names.RUNNING) == 1
    assert value(names.KV_CELLS) == 8192
    assert value(f"{names.TIME_TO_FIRST_TOKEN}_count") == 3
    assert value(f"{names.INTER_TOKEN}_count") == 9
    assert value(f"{names.REQUEST_SECONDS}_count") == 3
    assert value(f"{names.QUEUE_SECONDS}_count") == 3
    everything = {value for name, value in vars(names).items() if name.isupper()}
    told = ops.get("/metrics").text
    assert {name for name in everything if f"# TYPE {name}" not in told} == set()
