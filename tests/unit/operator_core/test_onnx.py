"""Models of ONNX: which class can run them, what they take, and one SLMDeployment with an artifact of each format."""

from typing import Any

import pytest

from slm_contract import kv
from slm_contract.config import EngineName, KVCacheType, ModelFormat, RuntimeConfig
from slm_contract.source import SourcePin
from slm_operator.model.fit import fit
from slm_operator.model.memory import estimate
from slm_operator.nodes import Node
from slm_operator.revision.digests import bundle_digest
from slm_operator.settings import CatalogEntry, HardwareClass, ResourceRequest
from tests.unit.operator_core.world import (
    CPU,
    GPU,
    NPU,
    SETTINGS,
    SMOLLM2,
    World,
    config_of,
    gpu_node,
    node,
    reasons,
    spec,
)

FOLDER, FILE = "hf://org/m-onnx/cpu-int4", "hf://org/m-gguf/m-Q4_0.gguf"
ONNX = SMOLLM2.model_copy(
    update={
        "format": "ONNX",
        "file_name": "model.onnx",
        "size_bytes": 90_038_209,
        "quantization": "int4",
        "parameter_count": 135_004_160,
        "weights_bytes": 86_287_648,
        "resident_bytes": 120_792_352,
        "kv_elements": 11_520,
        "kv_type": "f32",
        "pin": SourcePin(revision="c" * 40, digest="1" * 64),
    }
)
"""Of SmolLM2 135M, as onnxruntime-genai's builder makes it."""
GGUF = SMOLLM2.model_copy(update={"pin": SourcePin(revision="d" * 40, digest="2" * 64)})
FAST = HardwareClass(name="fast", family="fast", resource=ResourceRequest(name="example.com/fast"))
FAST_NODE = Node(name="f", labels={}, taints=(), allocatable={"memory": "16Gi", "example.com/fast": "1"})
HEADERS = {FOLDER: ONNX, FILE: GGUF}


def deployed(model: dict[str, Any], *, nodes: tuple[Node, ...] = (node(),), **changes: Any) -> World:
    settings = SETTINGS.model_copy(update={"classes": (FAST, NPU, GPU, CPU)})
    world = World(spec(model=model, **changes), nodes=nodes, settings=settings)
    settle(world)
    return world


def settle(world: World) -> None:
    """Let every look at a header end, and what follows of it."""
    for _ in range(3):
        world.settle()
        world.finish_inspections(HEADERS)
    world.settle()


def told(world: World) -> RuntimeConfig:
    return RuntimeConfig.model_validate_json(config_of(world.deployment))


def rejections(world: World) -> dict[str, str]:
    return {each["hardware"]: each["reason"] for each in world.status["placement"]["rejected"]}


@pytest.mark.parametrize("named", [{}, {"format": "ONNX"}])
def test_a_folder_is_looked_at_pinned_counted_and_named_with_its_engine(named: dict[str, str]) -> None:
    world = deployed({"source": FOLDER, **named})
    assert (told(world).engine, told(world).model.pin) == (EngineName.ONNX_RUNTIME, ONNX.pin)
    status = world.status
    assert (status["model"]["format"], status["model"]["engine"]) == ("ONNX", "OnnxRuntime")
    assert status["memory"]["kvCache"] == 4 * 8192 * 11_520 * 4
    assert status["memory"]["weights"] == ONNX.resident_bytes
    assert "(4 x 8192 tokens, f32)" in status["memory"]["explanation"]


def test_of_a_gguf_file_nothing_is_another() -> None:
    world = deployed({"source": FILE})
    assert told(world).engine is EngineName.LLAMA_CPP
    assert (world.status["model"]["format"], world.status["model"]["engine"]) == ("GGUF", "LlamaCpp")


def test_a_class_whose_image_lacks_the_engine_is_passed_over_by_name() -> None:
    hardware = {"preference": ["gpu", "cpu"]}
    world = deployed({"source": FOLDER}, nodes=(node(), gpu_node()), hardware=hardware)
    assert world.status["placement"]["selected"] == "cpu"
    said = "its artifact is ONNX, which OnnxRuntime runs, and its image has LlamaCpp"
    assert rejections(world)["gpu-nvidia"] == said


@pytest.mark.parametrize(
    ("model", "runtime", "said"),
    [
        ({}, {"engine": "LlamaCpp"}, "and the spec asks for LlamaCpp"),
        ({}, {"kvCacheType": "q8_0"}, "OnnxRuntime has no runtime.kvCacheType q8_0"),
        ({"adapters": [{"name": "a", "source": "hf://o/a/a.gguf"}]}, {}, "OnnxRuntime has no model.adapters"),
        ({"quantization": "Q4_0"}, {}, "OnnxRuntime has no model.quantization"),
        ({"projector": {"source": "hf://o/p/p.gguf"}}, {}, "OnnxRuntime has no model.projector"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_the_engine_has_not_is_refused_before_anything_is_transferred(
    model: dict[str, Any], runtime: dict[str, Any], said: str, known: bool
) -> None:
    model = {"source": FOLDER, **model, **({"format": "ONNX"} if known else {})}
    world = World(spec(model=model, runtime=runtime, hardware={"preference": ["cpu"]}))
    world.settle()
    if known:
        assert "Job" not in world.kinds(), "what the spec says needs no look at the source"
    else:
        world.finish_inspections({**HEADERS, "hf://o/a/a.gguf": ONNX, "hf://o/p/p.gguf": ONNX})
        world.settle()
    assert "Deployment" not in world.kinds()
    assert reasons(world.status, ("Ready", "Placed", "Stalled")) == ["NoEngine"] * 3
    assert said in world.condition("Placed")["message"]  # type: ignore[index]
    world.edit(model={"source": FILE}, runtime={})
    settle(world)
    assert "Deployment" in world.kinds()


def test_the_engine_that_no_gguf_runs_on_is_said() -> None:
    world = deployed({"source": FILE}, runtime={"engine": "OnnxRuntime"}, hardware={"preference": ["cpu"]})
    assert (
        "its artifact is GGUF, which LlamaCpp runs, and the spec asks for OnnxRuntime"
        in rejections(world)["cpu"]
    )


def test_one_spec_falls_from_its_onnx_class_to_its_gguf_class_and_back() -> None:
    variants = [{"hardware": "fast", "source": FOLDER, "format": "ONNX"}]
    hardware = {"preference": ["fast", "cpu"], "fallback": {"recover": "Always", "coolDown": "10m"}}
    world = deployed({"source": FILE, "variants": variants}, nodes=(node(), FAST_NODE), hardware=hardware)
    assert (world.status["placement"]["selected"], told(world).engine) == ("fast", EngineName.ONNX_RUNTIME)
    world.run_pods(ready=False, facts=ONNX)
    world.leave_unscheduled("0/2 nodes are available: 2 Insufficient example.com/fast.")
    world.settle()
    world.wait(minutes=6)
    settle(world)
    assert (world.status["placement"]["selected"], told(world).engine) == ("cpu", EngineName.LLAMA_CPP)
    assert (told(world).model.source, told(world).model.pin) == (FILE, GGUF.pin)
    world.run_pods(facts=GGUF)
    settle(world)
    assert reasons(world.status) == ["Serving"]
    assert world.status["model"]["engine"] == "LlamaCpp"
    world.wait(minutes=11)
    settle(world)
    assert (world.status["placement"]["selected"], told(world).engine) == ("fast", EngineName.ONNX_RUNTIME)
    world.run_pods(facts=ONNX)
    settle(world)
    assert reasons(world.status) == ["Serving"]
    assert (world.status["model"]["format"], world.status["model"]["engine"]) == ("ONNX", "OnnxRuntime")


def test_a_catalog_says_the_format_of_what_it_names() -> None:
    entry = CatalogEntry(source=FOLDER, format=ModelFormat.ONNX, license="MIT")
    world = World(
        spec(model={"source": "catalog://m"}), settings=SETTINGS.model_copy(update={"catalog": {"m": entry}})
    )
    settle(world)
    assert told(world).model.format is ModelFormat.ONNX


def test_a_class_has_the_engines_of_its_image() -> None:
    assert CPU.runs == (EngineName.LLAMA_CPP, EngineName.ONNX_RUNTIME)
    assert GPU.runs == (EngineName.LLAMA_CPP,)
    assert HardwareClass.model_validate({"name": "x", "family": "x", "engine": "LlamaCpp"}).runs == (
        EngineName.LLAMA_CPP,
    )
    both = GPU.model_copy(update={"engines": (EngineName.LLAMA_CPP, EngineName.ONNX_RUNTIME)})
    assert bundle_digest(both) == bundle_digest(GPU), "what runs isn't rolled for what else could"


def test_a_bound_of_the_cache_holds_whole_rows() -> None:
    row = 8192 * 11_520 * 4
    for bound, rows in ((4 * row, 4), (3 * row - 1, 2), (row, 1)):
        assert kv.cells(ONNX, KVCacheType.F16, 8192, 4, 512, limit=bound) == rows * 8192
    fitted = fit(ONNX, context_length=8192, kv_limit=row - 1)
    assert not fitted.fits
    assert "runtime.kvCacheMemory holds" in fitted.explanation


@pytest.mark.parametrize(("context", "parallel", "measured"), [(256, 1, 368), (1024, 4, 533), (512, 8, 539)])
def test_the_sum_is_within_five_percent_of_what_was_measured(
    context: int, parallel: int, measured: int
) -> None:
    """MiB of all processes, each row filled: of SmolLM2 135M in int4, on two threads."""
    total = estimate(ONNX, context, parallel=parallel).total / (1 << 20)
    assert abs(total - measured) < 0.05 * measured
