"""Going back and coming again: edits, suspension and changes of the configuration in the middle of a rollout."""

import copy
import json
from typing import Any

import pytest

from slm_operator.crd.names import ROLLOUT_ANNOTATION
from slm_operator.settings import Settings
from slm_operator.snapshot import ChildRef
from tests.unit.operator_core.world import GIVEN, GPU, SETTINGS, World, gpu_node, node, reasons, spec

OTHER = {"source": "https://host/other.gguf", "sha256": "e" * 64}
THIRD = {"source": "https://host/third.gguf", "sha256": "3" * 64}
FAILURE = {"reason": "ChecksumMismatch", "message": "wrong", "remedy": "correct it", "permanent": True}


def served(**changes: Any) -> World:
    world = World(spec(**{"resources": GIVEN, **changes}))
    world.settle()
    for ref in list(world.children):
        if ref.kind == "Job":
            world.finish_job("pull")
    world.settle()
    world.run_pods()
    world.settle()
    return world


def fail_for_good(world: World) -> None:
    world.run_pods(ready=False)
    message = json.dumps({"version": 1, "command": "fetch", "failure": FAILURE})
    world.fail("fetch", message, exit_code=20)


def template(world: World) -> dict[str, Any]:
    return copy.deepcopy(dict(world.deployment["spec"]["template"]))


def rollout(world: World) -> dict[str, Any]:
    return dict(json.loads(world.deployment["metadata"]["annotations"][ROLLOUT_ANNOTATION]))


def with_image(image: str) -> Settings:
    return SETTINGS.model_copy(update={"runtime_image": image})


def test_time_without_pods_isnt_time_that_a_revision_had() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    tried = template(world)
    world.edit(suspend=True)
    world.settle()
    world.run_pods()
    world.settle()
    world.wait(days=1)
    world.settle()
    world.edit(suspend=False)
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    assert template(world) == tried
    assert reasons(world.status, ("Stalled",)) == []
    world.wait(seconds=world.deployment["spec"]["progressDeadlineSeconds"])
    world.settle()
    assert template(world) != tried, "from then on it has its time as any other"


def test_an_edit_while_nothing_runs_has_its_time_from_the_first_pods_on() -> None:
    world = served()
    world.edit(suspend=True)
    world.settle()
    world.run_pods()
    world.settle()
    world.edit(model=OTHER)
    world.settle()
    tried = template(world)
    world.wait(days=1)
    world.edit(suspend=False)
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    assert template(world) == tried


def test_a_correction_isnt_blamed_for_what_it_corrects() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    fail_for_good(world)
    world.edit(model=THIRD)
    world.settle()
    assert "third.gguf" in str(template(world))
    assert reasons(world.status, ("Stalled",)) == []


def test_a_correction_that_waits_isnt_blamed_for_what_it_corrects() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    world.run_pods(ready=False)
    world.edit(model=THIRD, resources=None)
    world.settle()
    assert world.job("inspect")
    fail_for_good(world)
    world.settle()
    world.finish_job("inspect")
    world.settle()
    assert "third.gguf" in str(template(world))


def test_a_corrected_configuration_isnt_blamed_for_the_one_before() -> None:
    world = served(rollout={"upgrade": "Auto"})
    world.settings = with_image("registry/slm-runtime:bad")
    world.settle()
    assert ":bad" in str(template(world))
    world.run_pods(ready=False)
    world.wait(days=1)
    world.settings = with_image("registry/slm-runtime:good")
    world.settle()
    assert ":good" in str(template(world)) or not world.condition("Stalled")
    world.run_pods()
    world.settle()
    assert ":good" in str(template(world))


def test_what_failed_is_tried_again_after_another_spec_was_asked_for() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    fail_for_good(world)
    world.settle()
    world.run_pods()
    world.settle()
    world.edit(model=spec()["model"])
    world.settle()
    assert reasons(world.status) == ["Serving"]
    assert [each["state"] for each in world.status["revisions"]] == ["RolledBack", "Serving"]
    world.edit(model=OTHER)
    world.settle()
    assert "other.gguf" in str(template(world))


def test_what_was_gone_back_to_can_be_gone_back_to_again() -> None:
    world = served()
    good = template(world)
    world.edit(model=OTHER)
    world.settle()
    fail_for_good(world)
    world.settle()
    world.run_pods(ready=False)
    world.edit(model=THIRD)
    world.settle()
    fail_for_good(world)
    world.settle()
    assert template(world) == good


def test_a_spec_that_is_put_back_can_be_gone_back_to() -> None:
    world = served()
    good = template(world)
    world.edit(model=OTHER)
    world.settle()
    world.run_pods(ready=False)
    world.edit(model=spec()["model"])
    world.settle()
    assert template(world) == good
    world.run_pods(ready=False)
    world.edit(model=THIRD)
    world.settle()
    fail_for_good(world)
    world.settle()
    assert template(world) == good


def test_a_deployment_that_somebody_deleted_takes_no_memory_with_it() -> None:
    world = served()
    good = template(world)
    world.edit(model=OTHER)
    world.settle()
    fail_for_good(world)
    world.settle()
    world.run_pods()
    world.settle()
    del world.children[ChildRef("Deployment", "smollm2")]
    world.pods = []
    world.settle()
    fail_for_good(world)
    world.settle()
    assert template(world) == good


def test_a_lost_record_is_no_reason_to_go_back() -> None:
    world = served()
    world.edit(model=OTHER)
    world.settle()
    world.run_pods()
    world.settle()
    running = template(world)
    del world.children[ChildRef("ControllerRevision", rollout(world)["revision"])]
    world.wait(days=1)
    world.run_pods(ready=False)
    world.settle()
    assert template(world) == running


def test_a_key_that_nothing_mounts_isnt_made_again_and_again() -> None:
    world = served(auth={"mode": "None"})
    world.edit(model=OTHER, auth={"mode": "APIKey"})
    world.settle()
    fail_for_good(world)
    world.settle()
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["RolledBack"]
    assert not world.decide().plan


def test_an_upgrade_that_was_rolled_back_keeps_its_turn_so_that_few_meet_a_bad_image() -> None:
    world = served(rollout={"upgrade": "Auto"})
    assert world.decide().at_rest
    world.settings = world.settings.model_copy(update={"runtime_image": "registry/slm-runtime:bad"})
    world.settle()
    fail_for_good(world)
    world.settle()
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["RolledBack"]
    assert not world.decide().at_rest


def test_going_back_waits_for_no_job() -> None:
    world = served(cache={"mode": "PVC", "size": "2Gi"})
    good = template(world)
    world.edit(model=OTHER)
    world.settle()
    world.finish_job("pull")
    world.settle()
    assert "other.gguf" in str(template(world))
    fail_for_good(world)
    world.settle()
    assert template(world) == good
    assert "Job" not in world.kinds()


def test_a_replica_that_served_is_remembered_though_its_sibling_never_did() -> None:
    world = served(replicas=2)
    world.edit(model=OTHER)
    world.settle()
    tried = template(world)
    world.run_pods(ready=False)
    (ready,) = (each for each in world.pods[0]["status"]["conditions"] if each["type"] == "Ready")
    ready["status"] = "True"
    world.deployment["status"]["readyReplicas"] = 1
    world.settle()
    world.wait(days=1)
    world.settle()
    ready["status"] = "False"
    world.deployment["status"]["readyReplicas"] = 0
    world.settle()
    assert template(world) == tried


def unscheduled_gpu(**fallback: str) -> World:
    preference = {"preference": ["gpu", "cpu"], "fallback": fallback}
    world = World(spec(resources=GIVEN, hardware=preference), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled("no room " * 64)
    world.settle()
    return world


def test_years_of_tries_in_vain_are_remembered_in_a_few() -> None:
    world = unscheduled_gpu(recover="Always", coolDown="10m")
    for _ in range(60):
        world.wait(minutes=5)
        world.settle()
        world.run_pods()
        world.settle()
        assert world.status["placement"]["selected"] == "cpu"
        world.wait(days=2)
        world.settle()
        assert world.status["placement"]["selected"] == GPU.name
        world.run_pods(ready=False)
        world.leave_unscheduled("no room " * 64)
        world.settle()
    assert len(world.deployment["metadata"]["annotations"][ROLLOUT_ANNOTATION]) < 16_000


def test_a_cool_down_of_days_is_kept() -> None:
    world = unscheduled_gpu(recover="Always", coolDown="72h")
    world.wait(minutes=5)
    world.settle()
    world.run_pods()
    world.settle()
    world.wait(hours=71)
    world.settle()
    assert world.status["placement"]["selected"] == "cpu"
    world.wait(hours=1)
    world.settle()
    assert world.status["placement"]["selected"] == GPU.name


def test_a_node_is_waited_for_as_long_as_the_spec_says() -> None:
    world = World(spec(resources=GIVEN), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods()
    world.settle()
    world.edit(
        hardware={"preference": ["gpu", "cpu"], "fallback": {"after": "3h"}},
        cache={"mode": "PVC", "claimName": "shared"},
    )
    world.settle()
    world.finish_job("pull")
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled()
    world.settle()
    world.wait(hours=2)
    world.settle()
    assert world.status["placement"]["selected"] == GPU.name
    assert reasons(world.status, ("Stalled",)) == []
    world.wait(hours=1)
    world.settle()
    assert world.status["placement"]["selected"] == "cpu"


@pytest.mark.parametrize(("ready", "expected"), [(True, False), (False, True)])
def test_only_what_serves_waits_for_its_turn_with_an_upgrade(*, ready: bool, expected: bool) -> None:
    world = served(rollout={"upgrade": "Auto"})
    world.run_pods(ready=ready)
    world.settle()
    world.may_upgrade = False
    world.settings = with_image("registry/slm-runtime:2")
    decision = world.decide()
    assert any(step.ref.kind == "Deployment" for step in decision.plan.steps) == expected
    world.may_upgrade = True
    assert world.decide().upgrading == ready
