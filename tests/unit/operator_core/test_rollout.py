"""Revisions over their life: what is tried, what is gone back to, what is learnt, and what an earlier version left."""

import copy
import json
from typing import Any

import pytest

from slm_operator.crd.names import ROLLOUT_ANNOTATION
from slm_operator.settings import EnvVar, FetchSettings
from slm_operator.snapshot import ChildRef
from tests.unit.operator_core.world import (
    GIVEN,
    GPU,
    SETTINGS,
    World,
    gpu_node,
    node,
    reasons,
    spec,
)

PREFERENCE = {"preference": ["gpu", "cpu"]}
OTHER = {"source": "https://host/other.gguf", "sha256": "e" * 64}


def served(**changes: Any) -> World:
    world = World(spec(**{"resources": GIVEN, **changes}))
    world.settle()
    world.run_pods()
    world.settle()
    return world


def revisions(world: World) -> list[tuple[str, str | None]]:
    """State and reason, newest first."""
    return [(each["state"], each.get("reason")) for each in world.status["revisions"]]


def rollout(world: World) -> dict[str, Any]:
    return dict(json.loads(world.deployment["metadata"]["annotations"][ROLLOUT_ANNOTATION]))


def fail_for_good(world: World) -> None:
    """The pods of the present template fail, the ones before serve on."""
    before = [copy.deepcopy(pod) for pod in world.pods]
    world.run_pods(ready=False)
    failure = {"reason": "ChecksumMismatch", "message": "wrong", "remedy": "correct it", "permanent": True}
    message = json.dumps({"version": 1, "command": "fetch", "failure": failure})
    world.fail("fetch", message, exit_code=20)
    world.pods += before
    world.deployment["status"] |= {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}


def test_a_revision_that_fails_for_good_gives_way_to_the_last_that_served() -> None:
    world = served()
    before = copy.deepcopy(world.deployment["spec"]["template"])
    serving = list(world.pods)
    world.edit(model=OTHER)
    world.settle()
    assert "other.gguf" in str(world.deployment["spec"]["template"])
    fail_for_good(world)
    world.settle()
    assert world.deployment["spec"]["template"] == before
    world.pods = serving
    world.deployment["status"] |= {
        "observedGeneration": world.deployment["metadata"]["generation"],
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
    }
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled")) == ["RolledBack", "ChecksumMismatch"]
    assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    assert revisions(world) == [("RolledBack", "ChecksumMismatch"), ("Serving", None)]
    assert world.status["lastFailure"]["reason"] == "ChecksumMismatch"
    world.wait(days=2)
    assert not world.reconcile().plan, "what failed isn't tried again"
    world.edit(model=spec()["model"])
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled")) == ["Serving"]
    world.edit(runtime={"contextLength": 1024})
    world.settle()
    assert revisions(world)[1:] == [("RolledBack", "ChecksumMismatch"), ("Superseded", None)], "it stays so"


def test_a_server_that_crashes_again_and_again_shows_nothing_new_by_waiting() -> None:
    world = served()
    before = copy.deepcopy(world.deployment["spec"]["template"])
    world.edit(runtime={"contextLength": 1024})
    world.settle()
    world.run_pods(ready=False)
    world.fail("serve", "", exit_code=137, reason="OOMKilled")
    (serve,) = world.pods[0]["status"]["containerStatuses"]
    serve["restartCount"] = 2
    world.settle()
    assert world.deployment["spec"]["template"] != before
    serve["restartCount"] = 3
    world.settle()
    assert world.deployment["spec"]["template"] == before
    assert revisions(world)[0] == ("RolledBack", "OutOfMemory")


def test_a_fetch_that_fails_again_and_again_has_all_the_time_of_its_revision() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    tried = copy.deepcopy(world.deployment["spec"]["template"])
    world.run_pods(ready=False)
    failure = {"reason": "SourceUnreachable", "message": "away", "remedy": "wait", "permanent": False}
    world.fail("fetch", json.dumps({"version": 1, "command": "fetch", "failure": failure}), exit_code=21)
    world.pods[0]["status"]["initContainerStatuses"][0]["restartCount"] = 9
    world.settle()
    assert world.deployment["spec"]["template"] == tried


def test_what_failed_is_tried_again_when_the_configuration_changes() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    fail_for_good(world)
    world.settle()
    world.settings = SETTINGS.model_copy(
        update={"fetch": FetchSettings(env=(EnvVar(name="HTTPS_PROXY", value="http://proxy"),))}
    )
    world.settle()
    assert "other.gguf" in str(world.deployment["spec"]["template"])


def test_a_revision_has_the_time_that_its_bytes_ask_for() -> None:
    world = served()
    before = copy.deepcopy(world.deployment["spec"]["template"])
    world.edit(model=OTHER)
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    limit = world.deployment["spec"]["progressDeadlineSeconds"]
    assert world.decide().requeue_after == limit
    world.wait(seconds=limit - 1)
    world.settle()
    assert world.deployment["spec"]["template"] != before
    world.wait(seconds=1)
    world.settle()
    assert world.deployment["spec"]["template"] == before
    assert revisions(world)[0] == ("RolledBack", "NoFirstToken")


def test_a_server_that_crashes_three_times_is_given_up_and_a_fetch_is_tried_on() -> None:
    world = served()
    before = copy.deepcopy(world.deployment["spec"]["template"])
    world.edit(runtime={"parallel": 2})
    world.settle()
    for container, code in (("fetch", 21), ("serve", 1)):
        world.run_pods(ready=False)
        world.fail(container, "", exit_code=code)
        statuses = "initContainerStatuses" if container == "fetch" else "containerStatuses"
        world.pods[0]["status"][statuses][0]["restartCount"] = 3
        assert world.deployment["spec"]["template"] != before
        world.settle()
    assert world.deployment["spec"]["template"] == before
    assert revisions(world)[0] == ("RolledBack", "ContainerFailed")


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods(ready=False)
    world.fail("serve", "", exit_code=1)
    world.wait(days=1)
    world.settle()
    assert reasons(world.status) == ["ContainerFailed"]
    assert revisions(world) == [("Pending", None)]


def test_a_revision_that_has_served_is_not_given_up_for_what_fails_later() -> None:
    world = served()
    world.edit(runtime={"parallel": 2})
    world.settle()
    world.run_pods()
    world.settle()
    template = copy.deepcopy(world.deployment["spec"]["template"])
    world.run_pods(ready=False)
    world.fail("serve", "", exit_code=50)
    world.wait(days=1)
    world.settle()
    assert world.deployment["spec"]["template"] == template
    assert reasons(world.status) == ["EngineFailed"]


def test_what_never_served_is_no_revision_to_go_back_to() -> None:
    world = served()
    first = rollout(world)["revision"]
    world.edit(runtime={"parallel": 2})
    world.settle()
    world.run_pods(ready=False)
    world.edit(runtime={"parallel": 3})
    world.settle()
    assert rollout(world)["fallback"] == first


def killed(world: World) -> None:
    world.run_pods(ready=False)
    world.fail("serve", "", exit_code=137, reason="OOMKilled")
    world.settle()


def memory(world: World) -> int:
    (container,) = world.deployment["spec"]["template"]["spec"]["containers"]
    return int(container["resources"]["limits"]["memory"].removesuffix("Mi"))


def test_an_out_of_memory_kill_teaches_three_times_and_no_more() -> None:
    world = World(spec())
    world.settle()
    world.finish_job("inspect")
    world.settle()
    computed = memory(world)
    seen = []
    for _ in range(5):
        killed(world)
        seen.append(memory(world) / computed)
    assert seen == pytest.approx([1.25, 1.5625, 1.953, 1.953, 1.953], abs=0.01)
    assert "raised to" in world.status["memory"]["explanation"]
    assert reasons(world.status, ("MemoryFits",)) == ["OutOfMemory"]
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["Serving"]


def test_memory_that_the_spec_gives_is_not_changed() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    before = copy.deepcopy(world.deployment["spec"]["template"])
    killed(world)
    assert world.deployment["spec"]["template"] == before


def test_a_lesson_ends_where_no_node_has_more() -> None:
    world = World(spec(), nodes=(node(memory="1200Mi"),))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    for _ in range(3):
        killed(world)
    assert memory(world) == 1200


def unscheduled_gpu(**fallback: str) -> World:
    world = World(
        spec(resources=GIVEN, hardware={**PREFERENCE, "fallback": fallback}), nodes=(node(), gpu_node())
    )
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled()
    world.settle()
    return world


def test_patience_outlives_pods_that_are_made_anew_and_edits_beside_it() -> None:
    world = unscheduled_gpu()
    world.wait(minutes=3)
    world.edit(runtime={"parallel": 2})
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled()
    world.settle()
    world.wait(minutes=2)
    world.settle()
    assert world.status["placement"]["selected"] == "cpu"
    (attempt,) = world.status["attempts"]
    assert (attempt["hardware"], attempt["cause"]) == (GPU.name, "Unscheduled")


def test_patience_begins_anew_where_a_pod_found_a_node_in_between() -> None:
    world = unscheduled_gpu()
    world.wait(minutes=4)
    world.run_pods()
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled()
    world.settle()
    world.wait(minutes=4)
    world.settle()
    assert world.status["placement"]["selected"] == GPU.name


@pytest.mark.parametrize(("recover", "expected"), [("Never", "cpu"), ("Always", GPU.name)])
def test_a_class_that_was_given_up_is_tried_again_after_its_cool_down(recover: str, expected: str) -> None:
    world = unscheduled_gpu(recover=recover, coolDown="10m")
    world.wait(minutes=5)
    world.settle()
    world.run_pods()
    world.settle()
    assert world.status["placement"]["selected"] == "cpu"
    world.wait(minutes=10)
    world.settle()
    assert world.status["placement"]["selected"] == expected
    if recover == "Always":
        assert world.deployment["spec"]["strategy"]["type"] == "RollingUpdate", "the CPU serves meanwhile"


def test_each_try_in_vain_doubles_the_cool_down() -> None:
    world = unscheduled_gpu(recover="Always", coolDown="10m")
    for rest in (10, 20):
        world.wait(minutes=5)
        world.settle()
        world.run_pods()
        world.settle()
        world.wait(minutes=rest - 1)
        world.settle()
        assert world.status["placement"]["selected"] == "cpu"
        world.wait(minutes=1)
        world.settle()
        assert world.status["placement"]["selected"] == GPU.name
        world.run_pods(ready=False)
        world.leave_unscheduled()
        world.settle()


def test_a_class_is_taken_back_when_nobody_would_notice() -> None:
    world = unscheduled_gpu(recover="WhenIdle", coolDown="10m")
    world.wait(minutes=5)
    world.settle()
    world.run_pods()
    world.settle()
    world.wait(hours=1)
    world.settle()
    assert world.status["placement"]["selected"] == "cpu"
    world.edit(suspend=True)
    world.settle()
    assert world.status["placement"]["selected"] == GPU.name


def test_devices_are_given_back_one_by_one() -> None:
    world = World(
        spec(resources=GIVEN, hardware=PREFERENCE, replicas=4), nodes=(node(), gpu_node(), gpu_node("b"))
    )
    world.settle()
    assert world.deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
    }


LEGACY = ("decision", "inputs", "site", "template", "model-facts")


def as_version_0_1_left_it(world: World) -> None:
    """No revisions, the decision in annotations, no label on the pods, the key Secret mounted as it is."""
    world.children = {ref: each for ref, each in world.children.items() if ref.kind != "ControllerRevision"}
    live = world.deployment
    metadata, template = live["metadata"], live["spec"]["template"]
    metadata["annotations"] = {
        "slm-operator.io/decision": json.dumps(
            {
                "hardwareClass": "cpu",
                "reason": "cpu: 1 node fits",
                "placement": "",
                "image": "registry/slm-runtime:0.1",
                "memory": {"request": "1024Mi", "explanation": "spec.resources gives 1.0 GiB"},
            }
        ),
        "slm-operator.io/inputs": "",
        "slm-operator.io/site": "of-then",
        "slm-operator.io/template": "of-then",
        "slm-operator.io/intent": "of-then",
    }
    del template["metadata"]["labels"]["slm-operator.io/revision"]
    template["spec"]["volumes"][-1] = {"name": "keys", "secret": {"secretName": "smollm2-api-key"}}
    template["spec"]["containers"][0]["image"] = "registry/slm-runtime:0.1"
    for pod in world.pods:
        del pod["metadata"]["labels"]["slm-operator.io/revision"]


def test_an_upgrade_from_the_first_version_rolls_no_pod() -> None:
    world = served()
    as_version_0_1_left_it(world)
    template = copy.deepcopy(world.deployment["spec"]["template"])
    service = copy.deepcopy(world.children[ChildRef("Service", "smollm2")])
    plan = world.reconcile().plan
    assert [step.ref.kind for step in plan.steps] == ["ControllerRevision", "Deployment"]
    world.settle()
    assert world.deployment["spec"]["template"] == template
    assert world.children[ChildRef("Service", "smollm2")] == service
    assert not any(
        f"slm-operator.io/{each}" in world.deployment["metadata"]["annotations"] for each in LEGACY
    )
    assert reasons(world.status) == ["Serving"]
    world.edit(runtime={"parallel": 2})
    world.settle()
    (*_, keys) = world.deployment["spec"]["template"]["spec"]["volumes"]
    assert keys["secret"]["secretName"] == "smollm2-api-key", "that Secret has no owner's entry"


def test_a_revision_that_somebody_deleted_is_read_off_what_runs() -> None:
    world = served()
    template = copy.deepcopy(world.deployment["spec"]["template"])
    world.children = {ref: each for ref, each in world.children.items() if ref.kind != "ControllerRevision"}
    world.settle()
    assert world.deployment["spec"]["template"] == template
    assert [ref.kind for ref in world.children].count("ControllerRevision") == 1
    assert reasons(world.status) == ["Serving"]


def test_a_few_revisions_are_kept_and_those_in_use_always() -> None:
    world = served()
    for parallel in range(1, 9):
        world.edit(runtime={"parallel": parallel})
        world.settle()
        world.run_pods()
        world.settle()
    assert [ref.kind for ref in world.children].count("ControllerRevision") == 5
    assert [each["state"] for each in world.status["revisions"]] == ["Serving"] + ["Superseded"] * 4


def test_a_claim_that_something_mounts_is_not_deleted() -> None:
    world = World(spec(cache={"mode": "PVC", "size": "2Gi"}, resources=GIVEN))
    world.settle()
    world.finish_job("pull")
    world.settle()
    world.run_pods()
    world.settle()
    own = ChildRef("PersistentVolumeClaim", "smollm2-models")
    old = list(world.pods)
    world.edit(cache={"claimName": "shared"})
    world.settle()
    assert own in world.children, "the live template mounts it"
    world.finish_job("pull")
    world.settle()
    world.run_pods(ready=False)
    world.pods += old
    world.settle()
    assert own in world.children, "a pod mounts it"
    world.pods = [pod for pod in world.pods if pod not in old]
    world.settle()
    assert own in world.children, "what may be gone back to mounts it"
    world.run_pods()
    world.settle()
    world.settle()
    assert own not in world.children


def test_a_claim_does_not_shrink() -> None:
    world = World(spec(cache={"mode": "PVC", "size": "5Gi"}, resources=GIVEN))
    world.settle()
    world.edit(cache={"mode": "PVC", "size": "2Gi"})
    world.settle()
    claim = world.children[ChildRef("PersistentVolumeClaim", "smollm2-models")]
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
