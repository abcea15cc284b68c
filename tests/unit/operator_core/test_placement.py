"""Which class is chosen, what is said of the others, and that a choice is kept."""

import copy
from dataclasses import replace

import pytest

from slm_operator.crd.quantities import parse_quantity
from slm_operator.nodes import Node
from slm_operator.settings import HardwareClass, Toleration
from tests.unit.operator_core.world import (
    CPU,
    GIVEN,
    GPU,
    NPU,
    SETTINGS,
    SMOLLM2,
    World,
    gpu_node,
    node,
    reasons,
    spec,
)

PREFERENCE = {"preference": ["npu", "gpu", "cpu"]}


def placed(world: World) -> str | None:
    selected = world.status["placement"].get("selected")
    return None if selected is None else str(selected)


def rejections(world: World) -> dict[str, str]:
    return {each["hardware"]: each["reason"] for each in world.status["placement"]["rejected"]}


def test_the_first_class_that_nodes_offer_is_chosen() -> None:
    world = World(spec(resources=GIVEN, hardware=PREFERENCE), nodes=(node(), gpu_node()))
    world.settle()
    assert placed(world) == "gpu-nvidia"
    assert rejections(world) == {"npu-intel": "no node offers npu.intel.com/accel"}
    (serve,) = world.deployment["spec"]["template"]["spec"]["containers"]
    assert serve["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert world.deployment["spec"]["strategy"]["type"] == "Recreate"


def test_what_no_node_offers_is_said_in_one_line() -> None:
    world = World(spec(resources=GIVEN, hardware=PREFERENCE))
    world.settle()
    assert world.status["placement"]["reason"] == "cpu: 1 node fits; npu, gpu: no node offers one"


def test_a_class_that_a_user_adds_is_chosen_like_a_shipped_one() -> None:
    tpu = HardwareClass(
        name="tpu-acme", family="tpu", node_selector={"acme.example/tpu": "yes"}, provider="tpu"
    )
    world = World(
        spec(resources=GIVEN, hardware={"preference": ["tpu-acme", "cpu"]}),
        settings=SETTINGS.model_copy(update={"classes": (*SETTINGS.classes, tpu)}),
        nodes=(node(), Node("t", {"acme.example/tpu": "yes"}, (), {"memory": "8Gi"})),
    )
    world.settle()
    assert placed(world) == "tpu-acme"
    assert world.deployment["spec"]["template"]["spec"]["nodeSelector"] == {"acme.example/tpu": "yes"}


def test_no_pod_holds_an_accelerator_that_its_image_cannot_use() -> None:
    def world(gpu: HardwareClass) -> World:
        classes = tuple(gpu if each.name == gpu.name else each for each in SETTINGS.classes)
        made = World(
            spec(resources=GIVEN, hardware=PREFERENCE),
            settings=SETTINGS.model_copy(update={"classes": classes}),
            nodes=(node(), gpu_node()),
        )
        made.settle()
        return made

    bare = GPU.model_copy(update={"image_required": True, "image": None})
    without = world(bare)
    assert placed(without) == "cpu"
    assert rejections(without)["gpu-nvidia"] == (
        f"it needs a runtime image with {GPU.provider}: "
        "set hardwareClasses.gpu-nvidia.image in the operator's chart"
    )
    assert placed(world(bare.model_copy(update={"image": "registry/slm-runtime:cuda"}))) == "gpu-nvidia"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((), "the cluster has no node"),
        ((replace(gpu_node(), ready=False),), "none of 1 node is ready for pods"),
        ((replace(gpu_node(), unschedulable=True),), "none of 1 node is ready for pods"),
        ((node(),), "no node offers nvidia.com/gpu"),
        (
            (replace(gpu_node(), taints=({"key": "a", "effect": "NoSchedule"},)),),
            "1 node would do, but the class tolerates none of their taints (a)",
        ),
    ],
)
def test_why_a_class_has_no_node(nodes: tuple[Node, ...], reason: str) -> None:
    world = World(spec(resources=GIVEN, hardware={"preference": ["gpu"]}), nodes=nodes)
    world.settle()
    assert rejections(world) == {"gpu-nvidia": reason}
    assert reasons(world.status, ("Ready", "Placed")) == ["NoHardware", "NoHardware"]
    assert world.condition("Stalled") is None, "a node may come"
    world.nodes = (gpu_node(),)
    world.settle()
    assert placed(world) == "gpu-nvidia"


@pytest.mark.parametrize(
    "toleration",
    [
        Toleration(operator="Exists"),
        Toleration(key="a", operator="Exists"),
        Toleration(key="a", value="b"),
        Toleration(key="a", operator="Equal", value="b", effect="NoExecute"),
    ],
)
def test_tolerations_of_class_and_spec_count(toleration: Toleration) -> None:
    tainted = replace(gpu_node(), taints=({"key": "a", "value": "b", "effect": "NoExecute"},))
    tolerant = GPU.model_copy(update={"tolerations": (toleration,)})
    by_class = World(
        spec(resources=GIVEN, hardware={"preference": ["gpu"]}),
        settings=SETTINGS.model_copy(update={"classes": (tolerant,)}),
        nodes=(tainted,),
    )
    by_class.settle()
    assert placed(by_class) == "gpu-nvidia"
    by_spec = World(
        spec(
            resources=GIVEN,
            hardware={
                "preference": ["gpu"],
                "tolerations": [toleration.model_dump(by_alias=True, exclude_none=True)],
            },
        ),
        nodes=(tainted,),
    )
    by_spec.settle()
    assert placed(by_spec) == "gpu-nvidia"


def test_a_pool_that_grows_from_zero_is_taken_at_its_word() -> None:
    world = World(
        spec(resources=GIVEN, hardware=PREFERENCE),
        settings=SETTINGS.model_copy(
            update={"classes": (NPU.model_copy(update={"provisionable": True}), CPU)}
        ),
    )
    world.settle()
    assert placed(world) == "npu-intel"


def test_where_nodes_may_not_be_seen_the_scheduler_decides() -> None:
    world = World(spec(resources=GIVEN, hardware=PREFERENCE), nodes=None)
    world.settle()
    assert placed(world) == "npu-intel"


def test_a_class_whose_pods_are_never_scheduled_is_left_with_the_schedulers_words() -> None:
    world = World(spec(resources=GIVEN, hardware=PREFERENCE), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    world.settle()
    world.wait(minutes=4)
    world.settle()
    assert placed(world) == "gpu-nvidia"
    assert reasons(world.status, ("Ready", "Placed")) == ["Unschedulable", "Unschedulable"]
    assert world.decide().requeue_after == 60
    world.wait(minutes=1)
    world.settle()
    assert placed(world) == "cpu"
    assert rejections(world)["gpu-nvidia"] == (
        "no pod was scheduled for 5m (0/2 nodes are available: 2 Insufficient nvidia.com/gpu.)"
    )
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["Serving"]
    world.wait(days=3)
    before = copy.deepcopy(world.status)
    assert not world.reconcile().plan
    assert world.status == before


def test_the_rejection_outlives_edits_that_have_nothing_to_do_with_it() -> None:
    world = World(spec(resources=GIVEN, hardware=PREFERENCE), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled()
    world.settle()
    world.wait(minutes=6)
    world.settle()
    world.run_pods()
    world.edit(runtime={"contextLength": 1024})
    world.settle()
    assert placed(world) == "cpu"
    world.edit(hardware={"preference": ["gpu", "cpu"]})
    world.settle()
    assert placed(world) == "gpu-nvidia"


def test_a_partial_shortage_is_said_and_stays() -> None:
    world = World(spec(resources=GIVEN, hardware=PREFERENCE, replicas=2), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods()
    running, waiting = world.pods
    world.pods = [waiting]
    world.leave_unscheduled()
    world.pods = [running, waiting]
    world.deployment["status"] = {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 1,
    }
    world.wait(hours=2)
    world.settle()
    assert placed(world) == "gpu-nvidia"
    assert reasons(world.status, ("Available", "Ready")) == ["Unschedulable", "ReplicasReady"]


def test_the_last_class_is_never_left() -> None:
    world = World(spec(resources=GIVEN, hardware={"preference": ["cpu"]}))
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled()
    world.wait(hours=2)
    world.settle()
    assert placed(world) == "cpu"
    assert world.decide().requeue_after is None
    assert world.condition("Stalled") is None


@pytest.mark.parametrize(("recover", "expected"), [("Never", "cpu"), ("WhenNodesAppear", "gpu-nvidia")])
def test_a_class_that_nobody_offered_is_taken_later_only_where_the_spec_says_so(
    recover: str, expected: str
) -> None:
    hardware = {"preference": ["gpu", "cpu"], "fallback": {"recover": recover}}
    world = World(spec(resources=GIVEN, hardware=hardware))
    world.settle()
    world.run_pods()
    world.settle()
    world.nodes = (node(), gpu_node())
    world.settle()
    assert placed(world) == expected


def test_a_variant_is_what_its_class_runs() -> None:
    variants = [{"hardware": "gpu", "source": "https://host/for-gpu.gguf"}]
    model = {"source": "https://host/plain.gguf", "variants": variants}
    world = World(spec(model=model, resources=GIVEN, hardware=PREFERENCE), nodes=(node(), gpu_node()))
    world.settle()
    assert world.status["model"]["resolved"] == "for-gpu.gguf"


def test_a_model_that_fits_no_node_says_what_it_needs_and_heals() -> None:
    world = World(spec(hardware={"preference": ["cpu"]}), nodes=(node(memory="200Mi"),))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    assert reasons(world.status, ("Ready", "MemoryFits")) == ["DoesNotFit", "DoesNotFit"]
    assert "the most that a pod can get is 200 MiB" in world.status["lastFailure"]["message"]
    assert "(4 x 1024 tokens, f16)" in world.status["memory"]["explanation"]
    world.nodes = (node(memory="8Gi"),)
    world.settle()
    assert world.deployment["spec"]["replicas"] == 1


def test_a_context_that_does_not_fit_is_refused_with_the_longest_that_does() -> None:
    world = World(spec(runtime={"contextLength": 8192}), nodes=(node(memory="700Mi"),))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    assert reasons(world.status, ("Ready", "MemoryFits")) == ["DoesNotFit", "DoesNotFit"]
    assert "the longest context that fits it is 4096 tokens" in world.condition("MemoryFits")["message"]
    assert world.kinds() == ["Service"], "nothing was fetched"
    world.edit(runtime={"contextLength": 4096})
    world.settle()
    assert world.deployment["spec"]["replicas"] == 1


def test_a_context_above_what_the_model_holds_is_refused_before_it_is_fetched() -> None:
    world = World(spec(runtime={"contextLength": 32768}))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled", "MemoryFits")) == ["ContextTooLong"] * 3
    assert (
        "holds 8192 tokens, for which it was trained, and contextLength asks for 32768"
        in world.condition("Ready")["message"]
    )
    assert "set spec.runtime.contextLength to 8192 or less" in world.status["lastFailure"]["remedy"]
    assert world.kinds() == ["Service"], "nothing was fetched"
    world.edit(runtime={"contextLength": 8192})
    world.settle()
    assert world.deployment["spec"]["replicas"] == 1


def test_a_context_that_rope_scaling_reaches_is_taken() -> None:
    world = World(spec(runtime={"contextLength": 32768}))
    world.settle()
    world.finish_job("inspect", SMOLLM2.model_copy(update={"scaled_context_length": 32768}))
    world.settle()
    assert world.deployment["spec"]["replicas"] == 1


def test_what_runs_with_too_long_a_context_goes_on() -> None:
    """An earlier version took any context: the revision stays until the spec changes."""
    world = World(spec(resources=GIVEN, runtime={"contextLength": 32768}))
    world.settle()
    world.run_pods()
    world.settle()
    before = world.deployment["spec"]["template"]
    assert world.condition("Ready")["status"] == "True"
    world.edit(runtime={"contextLength": 16384})
    world.settle()
    assert "ContextTooLong" in reasons(world.status, ("Stalled",))
    assert world.deployment["spec"]["template"] == before


def test_status_has_a_line_for_each_part_of_the_memory() -> None:
    world = World(spec())
    world.settle()
    hybrid = {"kv_elements": 6144, "recurrent_blocks": 18, "recurrent_elements": 18 * 280_576}
    world.finish_job("inspect", SMOLLM2.model_copy(update=hybrid))
    world.settle()
    memory = world.status["memory"]
    parts = ("weights", "kvCache", "recurrentState", "snapshots", "compute", "outputs", "process", "headroom")
    assert sum(memory[part] for part in parts) == parse_quantity(memory["request"])
    assert memory["recurrentState"] == 4 * 18 * 280_576 * 4


def test_a_class_without_the_memory_is_passed_over() -> None:
    world = World(spec(hardware={"preference": ["gpu", "cpu"]}), nodes=(node(), gpu_node(memory="200Mi")))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    assert placed(world) == "cpu"
    assert "the most that a pod can get is 200 MiB" in rejections(world)["gpu-nvidia"]
    assert world.kinds() == ["Deployment", "Service"]


def test_each_variants_header_is_read_once() -> None:
    """The first variant doesn't fit, so the second is read; what was read of the first isn't forgotten meanwhile."""
    model = {
        "source": "https://host/plain.gguf",
        "variants": [{"hardware": "gpu", "source": "https://host/big.gguf"}],
    }
    world = World(
        spec(model=model, hardware={"preference": ["gpu", "cpu"]}), nodes=(node(), gpu_node(memory="1Gi"))
    )
    world.settle()
    world.finish_job("inspect", SMOLLM2.model_copy(update={"weights_bytes": 9 << 30}))
    world.settle()
    jobs = [ref.name for ref in world.children if ref.kind == "Job"]
    assert len(jobs) == 2
    pending = [ref for ref in world.children if ref.kind == "Job" and "status" not in world.children[ref]]
    finished = {
        ref: world.children.pop(ref)
        for ref in list(world.children)
        if ref.kind == "Job" and ref not in pending
    }
    world.finish_job("inspect")
    world.children.update(finished)
    world.settle()
    assert placed(world) == "cpu"
    assert world.kinds() == ["Deployment", "Service"]


def test_an_accelerator_that_the_default_image_cannot_use_is_passed_over() -> None:
    needy = GPU.model_copy(update={"image_required": True})
    settings = SETTINGS.model_copy(update={"classes": (needy, CPU)})
    hardware = {"preference": ["gpu", "cpu"]}
    world = World(spec(resources=GIVEN, hardware=hardware), settings=settings, nodes=(node(), gpu_node()))
    world.settle()
    assert placed(world) == "cpu"
    assert "set hardwareClasses.gpu-nvidia.image" in rejections(world)["gpu-nvidia"]
    settings = SETTINGS.model_copy(update={"classes": (needy.model_copy(update={"image": "cuda:1"}), CPU)})
    world = World(spec(resources=GIVEN, hardware=hardware), settings=settings, nodes=(node(), gpu_node()))
    world.settle()
    assert placed(world) == "gpu-nvidia"
