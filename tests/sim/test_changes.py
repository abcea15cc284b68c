"""Changes without harm: edits, fallback, rollback, lessons and upgrades, played in the whole simulated cluster."""

import asyncio
from pathlib import Path

import pytest
import yaml

from slm_operator.crd import names
from slm_operator.observed.pods import parse_time
from slm_operator.plan import intent
from slm_operator.settings import FetchSettings, HardwareClass, ResourceRequest
from tests.sim.cases import DEPLOYMENT, SLM, node, npu_node, slm
from tests.sim.cluster import MANAGER, Ref
from tests.sim.stories import OTHER, conditions, edit, holder, model, play, pods, seconds
from tests.sim.world import World

ROOT = Path(__file__).parents[2]


# Edits.


def test_an_edit_of_four_replicas_with_a_device_each_never_takes_all_down():
    """Nor does it ask for a fifth device, which there isn't."""
    least = [4]

    async def scenario(each: World) -> None:
        fast = npu_node()
        fast["status"]["allocatable"]["example.com/npu"] = "4"
        each.cluster.put(fast)
        each.cluster.put(slm(replicas=4, hardware={"preference": ["npu"]}))
        await each.pause()
        assert len(pods(each)) == 4
        safe = each.watch

        def watch(seen: World) -> None:
            safe(seen)
            least.append(seen.cluster.objects[DEPLOYMENT]["status"]["readyReplicas"])

        each.watch = watch
        edit(each, runtime={"contextLength": 1024})
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)
    assert min(least) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": {"preference": ["cpu", "npu"]}},
        {"hardware": {"preference": ["npu", "cpu"], "fallback": {"after": "1h"}}},
        {"endpoint": {"port": 80}},
        {"rollout": {"upgrade": "Auto"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edit_that_changes_nothing_of_the_pods_rolls_none(changes):
    """Though more is known of the model by now than when they were made."""

    async def scenario(each: World) -> None:
        each.cluster.put(slm(hardware={"preference": ["npu", "cpu"]}))
        await each.pause()
        edit(each, **changes)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    assert play(scenario).controllers.starts == {"a": 1}


def test_pods_that_serve_stay_when_a_better_class_is_tried_in_vain():
    """Twice the device is held by somebody else: the pods on the CPU are made once."""

    async def scenario(each: World) -> None:
        each.cluster.put(npu_node())
        each.cluster.put(holder("example.com/npu"))
        fallback = {"after": "1m", "recover": "WhenNodesAppear"}
        each.cluster.put(slm(hardware={"preference": ["npu", "cpu"], "fallback": fallback}))
        await asyncio.sleep(300)
        each.cluster.change(
            SLM, lambda document: document["spec"]["hardware"]["fallback"].update(recover="Always")
        )
        await asyncio.sleep(3000)
        each.cluster.change(
            SLM, lambda document: document["spec"]["hardware"]["fallback"].update(recover="Never")
        )

    made = {
        event.ref.name
        for event in play(scenario).cluster.history
        if event.ref.kind == "Pod" and event.document["metadata"]["labels"].get(names.HARDWARE_LABEL) == "cpu"
    }
    assert len(made) == 1


def test_a_model_that_crashes_is_given_up_long_before_its_time_is_over():
    async def scenario(each: World) -> None:
        each.cluster.put(slm())
        await each.pause()
        edit(each, model=model("crash"))
        await each.pause()
        (attempt,) = each.cluster.objects[SLM]["status"]["attempts"]
        took = parse_time(attempt["until"]) - parse_time(attempt["since"])
        assert took.total_seconds() < 60
        assert conditions(each)["Ready"] == ("True", "RolledBack")
        assert conditions(each)["Stalled"] == ("True", "EngineFailed")

    play(scenario)


def test_a_model_that_is_never_ready_is_given_up_when_its_time_is_over():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(resources=None))
        await each.pause()
        edit(each, model=model("never-ready"))
        await each.settle()
        assert conditions(each)["Stalled"] == ("True", "NoFirstToken")
        edit(each, model=OTHER)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert "Stalled" not in conditions(each)

    play(scenario)


def test_a_first_model_that_is_never_ready_says_so_when_its_time_is_over():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(model=model("never-ready"), resources=None))
        await each.settle()
        assert conditions(each)["Ready"] == ("False", "ProgressDeadlineExceeded")

    play(scenario)


def test_an_image_that_cannot_be_pulled_is_rolled_back():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(resources=None))
        await each.pause()
        edit(each, runtime={"image": "runtime:bad"})
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "RolledBack")
        assert conditions(each)["Stalled"] == ("True", "ImagePullFailed")

    assert play(scenario, allowed_image_prefixes=("runtime",)).controllers.starts == {"a": 2}


def test_out_of_memory_teaches_three_times_at_most():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(resources=None))
        await each.pause()
        edit(each, model=model("oom-64Gi"))
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "RolledBack")
        assert conditions(each)["Stalled"] == ("True", "OutOfMemory")

    assert play(scenario).controllers.starts == {"a": 5}, "the good one, the computed one, and three lessons"


@pytest.mark.parametrize("disturbed", ["nothing", "pods made anew", "an edit", "a restart"])
def test_patience_outlives(disturbed):
    async def disturb(each: World, minute: int) -> None:
        if disturbed == "pods made anew":
            (pod,) = {*pods(each)} - {"holder"}
            each.cluster.remove(Ref("Pod", "demo", pod))
        elif disturbed == "an edit":
            edit(each, runtime={"contextLength": 1024 + 128 * minute})
        elif disturbed == "a restart":
            await each.stop()
            await each.start()

    async def scenario(each: World) -> None:
        each.cluster.put(npu_node())
        each.cluster.put(holder("example.com/npu"))
        fallback = {"after": "5m"}
        each.cluster.put(slm(hardware={"preference": ["npu", "cpu"], "fallback": fallback}))
        for minute in range(4):
            await seconds(each, 60)
            await disturb(each, minute)
        assert each.cluster.objects[SLM]["status"]["placement"]["selected"] == "npu-test"
        await seconds(each, 70)
        assert each.cluster.objects[SLM]["status"]["placement"]["selected"] == "cpu"

    play(scenario)


# Upgrades.


def test_an_upgrade_from_version_0_1_rolls_no_pod_and_changes_no_service():
    """What that version left (`version_0_1.yaml`) gets a revision, and the Deployment's annotations name it."""
    *documents, told = yaml.safe_load_all((Path(__file__).parent / "version_0_1.yaml").read_text())
    former = Ref("Deployment", "demo", "smollm2")
    example = yaml.safe_load((ROOT / "examples" / "smollm2.yaml").read_text())
    resource = example | {"metadata": {"name": "smollm2", "namespace": "demo"}, **told}

    def as_left(each: World) -> None:
        uid = each.cluster.put(resource)["metadata"]["uid"]
        for document in documents:
            made = yaml.safe_load(yaml.safe_dump(document).replace("uid-of-cr", uid))
            made.get("spec", {}).pop("clusterIP", None)
            annotations = made["metadata"].get("annotations") or {}
            if annotations.pop(names.INTENT_ANNOTATION, None) is not None:
                if not annotations:
                    del made["metadata"]["annotations"]
                made = intent(made)
            each.cluster.apply_as(made, by="slm-operator")

    async def scenario(each: World) -> None:
        await each.stop()
        gpu = node("gpu", **{"nvidia.com/gpu": "1"})
        each.cluster.put(gpu)
        as_left(each)
        for _ in range(8):
            await asyncio.sleep(1)
            await each.step()
        before, since = dict(each.cluster.objects), len(each.cluster.writes)
        assert before[former]["status"]["readyReplicas"] == 1
        await each.start()
        await each.pause()
        written = [(write.verb, write.ref.kind) for write in each.cluster.changed_by(MANAGER, since=since)]
        assert written[:2] == [("create", "ControllerRevision"), ("update", "Deployment")]
        assert {kind for _, kind in written[2:]} <= {names.KIND}
        live, was = each.cluster.objects[former]["spec"], before[former]["spec"]
        assert {**live, "progressDeadlineSeconds": 0} == {**was, "progressDeadlineSeconds": 0}
        kept = {ref for ref in before if ref.kind not in {"Deployment", names.KIND}}
        assert {ref: each.cluster.objects[ref] for ref in kept} == {ref: before[ref] for ref in kept}
        assert conditions(each, former._replace(kind=names.KIND))["Ready"] == ("True", "Serving")

    gpu = HardwareClass(
        name="gpu-nvidia",
        family="gpu",
        resource=ResourceRequest(name="nvidia.com/gpu"),
        provider="cuda",
        gpu_layers=-1,
    )
    (bundle,) = (each["data"]["ca.crt"] for each in documents if each["kind"] == "ConfigMap")
    played = play(
        scenario,
        runtime_image="registry.example/slm-runtime:0.2.0",
        classes=(gpu, HardwareClass(name="cpu", family="cpu")),
        fetch=FetchSettings(ca_bundle=bundle),
    )
    assert played.controllers.starts == {"smollm2": 1}
