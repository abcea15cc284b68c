"""What the runtime reports gets into the status, and what it no longer reports isn't taken back."""

import copy
from datetime import UTC, datetime

import pytest

from slm_contract.report import Acceleration, Download, Performance, RuntimeReport
from tests.unit.operator_core.world import GIVEN, SMOLLM2, SOURCE, World, gpu_node, node, reasons, spec


def report(world: World, value: RuntimeReport) -> None:
    world.hear(value)
    world.settle()


def fetching(done: int, *, speed: float = 10.0, state: str = "Fetching") -> RuntimeReport:
    download = Download(
        state=state, bytes_done=done, bytes_total=1000, bytes_per_second=speed, eta_seconds=9.7
    )  # type: ignore[arg-type]
    return RuntimeReport(command="fetch", phase="Fetching", download=download)


READY = RuntimeReport(
    command="serve",
    phase="Ready",
    context_length=4096,
    acceleration=Acceleration(
        hardware_class="gpu-nvidia", device="NVIDIA L4", provider="cuda", layers=31, layers_total=31
    ),
    performance=Performance(
        load_seconds=1.234,
        first_token_ms=210.4,
        tokens_per_second=143.26,
        measured_at=datetime(2026, 1, 1, tzinfo=UTC),
    ),
)


@pytest.fixture
def world() -> World:
    world = World(spec(resources=GIVEN, hardware={"preference": ["gpu", "cpu"]}), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    return world


def test_progress_is_shown_in_steps(world: World) -> None:
    report(world, fetching(100))
    assert reasons(world.status) == ["Fetching"]
    assert world.status["download"] == {
        "url": SOURCE,
        "state": "Fetching",
        "percent": 10,
        "bytesPerSecond": 10,
        "etaSeconds": 10,
    }
    before = copy.deepcopy(world.status)
    report(world, fetching(149, speed=99))
    assert world.status == before
    report(world, fetching(150, speed=99))
    assert world.status["download"]["percent"] == 15


def test_loading_is_said(world: World) -> None:
    report(world, RuntimeReport(command="serve", phase="Loading"))
    assert reasons(world.status, ("Ready", "ModelReady")) == ["Loading", "Fetched"]


def test_what_was_measured_is_in_the_status(world: World) -> None:
    world.run_pods()
    report(world, READY)
    assert world.status["performance"] == {
        "loadSeconds": 1.2,
        "firstTokenMs": 210,
        "tokensPerSecond": 143.3,
        "measuredAt": "2026-01-01T00:00:00Z",
    }
    assert world.status["acceleration"] == {
        "device": "NVIDIA L4",
        "provider": "cuda",
        "layers": 31,
        "degraded": False,
    }
    assert world.status["model"]["contextLength"] == 4096
    assert reasons(world.status, ("Accelerated",)) == ["AsPlaced"]


def test_accelerated_says_how_much_is_on_the_device(world: World) -> None:
    world.run_pods()
    seen = READY.acceleration
    assert seen is not None
    used = {"layers": 31, "layers_total": 31, "memory_free": 20 << 30, "memory_total": 24 << 30}
    report(world, READY.model_copy(update={"acceleration": seen.model_copy(update=used)}))
    told = world.condition("Accelerated")
    assert told is not None
    assert told["message"] == "NVIDIA L4 by cuda, 31 of 31 layers, 4.0 GiB of its 24.0 GiB in use"


def test_a_restarted_operator_takes_nothing_back(world: World) -> None:
    world.run_pods()
    report(world, READY)
    before = copy.deepcopy(world.status)
    world.wait(days=1)
    world.reports = {}
    assert not world.reconcile().plan
    assert world.status == before


def test_a_degraded_accelerator_is_said_and_served(world: World) -> None:
    world.run_pods()
    degraded = Acceleration(hardware_class="gpu-nvidia", device="cpu (zen4)", provider="cpu", degraded=True)
    report(world, READY.model_copy(update={"acceleration": degraded}))
    assert reasons(world.status, ("Ready", "Accelerated")) == ["Serving", "Degraded"]
    accelerated = world.condition("Accelerated")
    assert accelerated is not None
    assert accelerated["status"] == "False"


def test_what_a_fetch_has_verified_is_told_when_it_serves_and_not_forgotten() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    before = copy.deepcopy(world.status)
    verified = SMOLLM2.model_copy(update={"sha256": "a" * 64})
    world.run_pods(ready=False, facts=verified)
    world.deployment["status"].pop("readyReplicas")
    world.settle()
    assert world.status == before, "no write for a step on the way"
    world.run_pods(facts=verified)
    world.settle()
    told = world.status["model"]
    assert (told["sha256"], told["quantization"], told["sizeBytes"]) == ("a" * 64, "Q4_1", 98_000_000)
    world.pods = []
    world.deployment["status"]["readyReplicas"] = 0
    world.settle()
    assert world.status["model"] == told
    world.edit(model={"source": "https://host/other.gguf"})
    world.settle()
    assert world.status["model"] == {"source": "https://host/other.gguf", "resolved": "other.gguf"}
