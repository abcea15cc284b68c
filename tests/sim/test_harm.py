"""The operator hurts nobody: what was once seen to do harm, played in the whole simulated cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_operator.cluster import errors
from slm_operator.crd import names
from slm_operator.observed.pods import parse_time
from slm_operator.plan import intent
from slm_operator.settings import FetchSettings, HardwareClass, ResourceRequest
from tests.sim.actors import Strangers, owner, scale
from tests.sim.cases import DEPLOYMENT, SLM, node, npu_node, slm, world
from tests.sim.cluster import MANAGER, Doc, Ref, clone
from tests.sim.loop import simulate
from tests.sim.safety import Safety
from tests.sim.stories import CLAIM, OTHER, conditions, edit, holder
from tests.sim.world import World

ROOT = Path(__file__).parents[2]
CA = Ref("ConfigMap", "demo", "a-ca")
CACHE = {"mode": "PVC", "size": "1Gi"}
MODEL = "https://models.example.com/{}.gguf"


def play(scenario: Callable[[World], Awaitable[None]], **settings: Any) -> World:
    """One operator over a cluster, safe at every moment and at rest in the end."""

    async def play() -> World:
        each = world()
        each.settings = each.settings.model_copy(update=settings)
        each.watch = Safety()
        await each.start()
        await scenario(each)
        await each.settle()
        since = len(each.cluster.requests)
        await asyncio.sleep(2000)
        await each.settle()
        assert each.cluster.requests[since:] == [], "no rest"
        await each.stop()
        return each

    return simulate(play())


async def reconfigure(each: World, **settings: Any) -> None:
    """The operator comes back with another configuration."""
    await each.stop()
    each.settings = each.settings.model_copy(update=settings)
    await each.start()


def claim(**metadata: Any) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM.name, "namespace": "demo", **metadata},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def pods(each: World) -> list[str]:
    return [ref.name for ref, _ in each.cluster.of("Pod")]


def model(name: str) -> Doc:
    return {"name": "m", "source": MODEL.format(name)}


# What isn't ours.


@pytest.mark.parametrize("labels", [{}, {names.MANAGED_BY_LABEL: names.MANAGED_BY}])
def test_somebodys_claim_outlives_us_byte_for_byte(labels):
    """Nor does anything of ours ever mount it: a pull Job would write into it."""

    async def scenario(each: World) -> None:
        each.cluster.put(claim(labels=labels))
        before = clone(each.cluster.objects[CLAIM])
        each.cluster.put(slm(cache=CACHE))
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "NameTaken")
        assert pods(each) == []
        each.cluster.remove(SLM)
        await each.pause()
        assert each.cluster.objects[CLAIM] == before

    play(scenario)


def test_nothing_trusts_the_cas_in_somebodys_config_map():
    async def scenario(each: World) -> None:
        each.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CA.name, "namespace": "demo"},
                "data": {"ca.crt": "of somebody else"},
            }
        )
        before = clone(each.cluster.objects[CA])
        each.cluster.put(slm())
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "NameTaken")
        assert pods(each) == []
        assert each.cluster.objects[CA] == before
        each.cluster.remove(CA)
        await asyncio.sleep(60)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario, fetch=FetchSettings(ca_bundle="of the site"))


def test_a_model_is_not_read_for_ever_where_the_deployments_name_is_taken():
    async def scenario(each: World) -> None:
        strangers = Strangers(each.cluster)
        each.cluster.put(owner())
        strangers.come(DEPLOYMENT, {}, owned=False)
        each.cluster.put(slm(resources=None))
        await each.settle()
        assert conditions(each)["Ready"] == ("False", "NameTaken")
        strangers.check()
        strangers.go(DEPLOYMENT)
        await asyncio.sleep(60)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


@pytest.mark.parametrize("tool", ["autoscaler", "kubectl-rollout"])
def test_a_writer_that_keeps_fighting_is_named_and_not_fought_for_ever(tool):
    async def scenario(each: World) -> None:
        each.cluster.put(slm(replicas=2))
        await each.pause()
        safe, since = each.watch, len(each.cluster.requests)

        def fight(seen: World) -> None:
            safe(seen)
            if tool == "autoscaler":
                scale(seen.cluster, 4)
            elif "runtime:1" in str(seen.cluster.objects[DEPLOYMENT]["spec"]["template"]):
                image = [{"name": "serve", "image": "runtime:0"}]
                seen.cluster.change(
                    DEPLOYMENT,
                    lambda document: document["spec"]["template"]["spec"]["containers"][0].update(image[0]),
                    by=tool,
                )

        each.watch = fight
        await seconds(each, 1800)
        written = [write for write in each.cluster.requests[since:] if write.ref == DEPLOYMENT]
        assert len(written) <= 10
        assert conditions(each)["Contended"] == ("True", "FieldsTaken")
        told = {one["type"]: one for one in each.cluster.objects[SLM]["status"]["conditions"]}
        assert tool in told["Contended"]["message"]
        each.watch = safe
        await asyncio.sleep(7200)
        await each.settle()
        assert "Contended" not in conditions(each)
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


# What something still needs.


def test_the_cas_that_a_running_template_mounts_stay_when_the_site_takes_them_back():
    async def scenario(each: World) -> None:
        each.cluster.put(slm())
        await each.pause()
        assert CA in each.cluster.objects
        await reconfigure(each, fetch=FetchSettings())
        await each.settle()
        assert CA in each.cluster.objects
        edit(each, replicas=2)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving"), "more of its pods can be made"

    play(scenario, fetch=FetchSettings(ca_bundle="of the site"))


def test_an_own_claim_stays_while_something_mounts_it():
    """From an own claim to one that somebody brings, which can't be filled at first."""

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=CACHE))
        await each.pause()
        edit(each, cache={"mode": "PVC", "claimName": "mine"})
        await each.pause()
        assert CLAIM in each.cluster.objects
        assert "deletionTimestamp" not in each.cluster.objects[CLAIM]["metadata"]
        mine = claim()
        mine["metadata"]["name"] = "mine"
        each.cluster.put(mine)
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert CLAIM not in each.cluster.objects

    play(scenario)


def test_one_of_two_stuck_pods_is_repaired_when_the_site_changes():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(replicas=2))
        await each.pause()
        before = each.cluster.objects[DEPLOYMENT]["spec"]["template"]
        stuck = Ref("Pod", "demo", pods(each)[1])

        def fail(pod: Doc) -> None:
            pod["status"]["phase"] = "Pending"
            pod["status"]["conditions"] = [{**pod["status"]["conditions"][1], "status": "False"}]
            waiting = {"reason": "ImagePullBackOff", "message": "ErrImagePull: no such host"}
            pod["status"]["containerStatuses"] = [{"name": "serve", "state": {"waiting": waiting}}]

        stuck_for_good(each, stuck, fail)
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "ImagePullFailed")
        await reconfigure(each, runtime_image="mirror/runtime:1")
        await each.pause()
        assert each.cluster.objects[DEPLOYMENT]["spec"]["template"] != before
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


def stuck_for_good(each: World, ref: Ref, fail: Callable[[Doc], None]) -> None:
    """A pod that kubelet brings no further."""
    each.cluster.change(ref, fail, by="kubelet")
    advance = each.controllers.pods.advance
    each.controllers.pods.advance = lambda pod, document: None if pod == ref else advance(pod, document)


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


# Words.


def test_a_service_monitor_that_is_refused_leaves_the_model_ready():
    async def scenario(each: World) -> None:
        each.cluster.monitoring = True
        await reconfigure(each)
        each.faults.refuse = lambda _verb, ref: (
            errors.InvalidError("metadata.labels: Invalid value") if ref.kind == "ServiceMonitor" else None
        )
        monitor = {"enabled": True, "labels": {"release": "p"}}
        each.cluster.put(slm(observability={"serviceMonitor": monitor}))
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert conditions(each)["MonitoringReady"] == ("False", "WriteInvalid")
        each.faults.refuse = lambda _verb, _ref: None
        await each.settle()
        assert conditions(each)["MonitoringReady"] == ("True", "ServiceMonitorMade")

    play(scenario)


def test_deleted_and_made_again_it_never_stalls():
    told: list[Doc] = []

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=CACHE))
        await each.pause()
        since = len(each.cluster.history)
        each.cluster.remove(SLM)
        each.cluster.put(slm(cache=CACHE))
        collect = each.controllers.collect_garbage
        each.controllers.collect_garbage = lambda: None
        await asyncio.sleep(5)
        assert conditions(each)["Ready"] == ("False", "WaitingForGarbageCollector")
        each.controllers.collect_garbage = collect
        each.controllers.limit_pods(None)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")
        told.extend(event.document for event in each.cluster.history[since:] if event.ref == SLM)

    play(scenario)
    assert "NameTaken" not in str(told)
    assert "Stalled" not in str(told)


def test_a_quota_is_told_and_heals():
    async def scenario(each: World) -> None:
        each.controllers.limit_pods(1)
        each.cluster.put(slm(replicas=2))
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "FailedCreate")
        each.controllers.limit_pods(None)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


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


async def seconds(each: World, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(1)
        await each.step()


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
