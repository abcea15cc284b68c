"""What happened, read from two statuses: a line for each decision and outcome, none for the steps on the way."""

import copy
from typing import Any

import pytest

from slm_contract.report import Download, Failure, FailureReason, FetchReport, RuntimeReport
from slm_operator.crd.resource import parse_status
from slm_operator.crd.status import Condition, Status
from slm_operator.snapshot import Decision
from slm_operator.status.events import LIMIT, Event, events
from tests.unit.operator_core.world import GIVEN, SETTINGS, START, World, gpu_node, node, spec, take

PREFERENCE = {"preference": ["gpu", "cpu"]}


class Watched(World):
    """Keeps what each status that was written tells."""

    def __init__(self, wanted: dict[str, Any], **more: Any) -> None:
        super().__init__(wanted, **more)
        self.told: list[Event] = []

    def reconcile(self) -> Decision:
        before = copy.deepcopy(self.resource)
        decision = super().reconcile()
        self.told += events(parse_status(before), parse_status(self.resource))
        return decision

    def tell(self) -> list[tuple[str, str]]:
        """Type and reason of all since this was last asked."""
        told, self.told = self.told, []
        return [(each.type, each.reason) for each in told]


def serving(**changes: Any) -> Watched:
    nodes = changes.pop("nodes", (node(),))
    world = Watched(spec(resources=GIVEN, **changes), nodes=nodes)
    world.settle()
    world.run_pods()
    world.settle()
    world.tell()
    return world


def test_a_create_is_a_placement_and_an_outcome() -> None:
    world = Watched(spec(resources=GIVEN))
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    download = Download(state="Fetching", bytes_done=500, bytes_total=1000)
    report = RuntimeReport(command="fetch", phase="Fetching", download=download)
    world.reports = {pod["metadata"]["uid"]: report for pod in world.pods}
    world.settle()
    world.reports = {}
    world.run_pods()
    world.settle()
    assert [(each.type, each.reason) for each in world.told] == [
        ("Normal", "Placed"),
        ("Normal", "RevisionReady"),
    ]
    assert world.told[0].message.startswith("on cpu: ")
    assert world.told[1].message == "revision 1 (SmolLM2-135M-Instruct.Q4_1.gguf on cpu) serves"


def test_reading_a_header_is_a_step_on_the_way() -> None:
    world = Watched(spec())
    world.settle()
    assert world.tell() == []
    world.finish_job("inspect")
    world.settle()
    assert world.tell() == [("Normal", "Placed")]


def test_an_edit_is_one_outcome_and_one_without_effect_is_none() -> None:
    world = serving()
    world.edit(runtime={"contextLength": 1024})
    world.settle()
    world.run_pods()
    world.settle()
    assert world.tell() == [("Normal", "RevisionReady")]
    world.edit(hardware={"fallback": {"after": "7m"}})
    world.settle()
    assert world.tell() == []


def test_another_class_by_the_spec_is_a_placement() -> None:
    world = serving(nodes=(node(), gpu_node()), hardware={"preference": ["cpu"]})
    world.edit(hardware=PREFERENCE)
    world.settle()
    assert world.tell() == [("Normal", "Placed")]


def test_a_class_that_finds_no_node_falls_back_and_its_fault_is_told_once() -> None:
    world = Watched(spec(resources=GIVEN, hardware=PREFERENCE), nodes=(node(), gpu_node()))
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    for _ in range(5):
        world.settle()
        world.wait(minutes=1)
    world.settle()
    assert world.tell() == [("Normal", "Placed"), ("Warning", "Unschedulable"), ("Normal", "FellBack")]


def test_a_preferred_class_that_can_be_had_again_is_a_recovery() -> None:
    world = serving(hardware={**PREFERENCE, "fallback": {"recover": "WhenNodesAppear"}})
    world.nodes = (node(), gpu_node())
    world.settle()
    assert world.tell() == [("Normal", "Recovered")]


def test_a_fault_is_told_once_and_its_end() -> None:
    world = Watched(spec(resources=GIVEN))
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    world.tell()
    for _ in range(3):
        world.fail("serve", "", exit_code=137, reason="OOMKilled")
        world.settle()
        world.wait(minutes=1)
    assert world.told[0].message == world.condition("Ready")["message"]
    assert world.tell() == [("Warning", "OutOfMemory")]
    world.run_pods()
    world.settle()
    assert world.tell() == [("Normal", "RevisionReady")]
    world.deployment["status"]["readyReplicas"] = 0
    world.fail("serve", "", exit_code=50)
    world.settle()
    assert world.tell() == [("Warning", "EngineFailed")]
    world.run_pods()
    world.settle()
    assert world.tell() == [("Normal", "Serving")]


def test_a_rollback_names_the_cause_and_what_comes_back_is_no_upgrade() -> None:
    world = serving()
    world.edit(runtime={"contextLength": 1024})
    world.settle()
    world.run_pods(ready=False)
    reason = FailureReason.CHECKSUM_MISMATCH
    failure = Failure(reason=reason, message="what is wrong", remedy="what to do", permanent=True)
    world.fail("fetch", FetchReport(command="fetch", failure=failure).to_json(), exit_code=20)
    world.settle()
    world.run_pods()
    world.settle()
    words = [each.message for each in world.told if each.reason == "RolledBack"]
    assert [each.partition(": ")[2] for each in words] == ["what is wrong"]
    assert world.told[-1].message == "revision 1 (SmolLM2-135M-Instruct.Q4_1.gguf on cpu) serves"
    assert world.tell() == [("Warning", "RolledBack"), ("Normal", "RevisionReady")]
    assert world.condition("Ready")["reason"] == "RolledBack"


def test_a_consented_upgrade_is_told_when_it_begins_and_when_it_is_through() -> None:
    world = serving(rollout={"upgrade": "Auto"})
    world.settings = SETTINGS.model_copy(update={"runtime_image": "registry/slm-runtime:2"})
    world.settle()
    assert "registry/slm-runtime:2" in world.told[0].message
    assert world.tell() == [("Normal", "UpgradeStarted")]
    world.run_pods()
    world.settle()
    assert world.tell() == [("Normal", "RevisionReady")]


def test_memory_that_was_too_little_is_told_when_more_is_given() -> None:
    world = Watched(spec())
    world.settle()
    world.finish_job("inspect")
    world.settle()
    world.run_pods(ready=False)
    world.settle()
    world.tell()
    world.fail("serve", "", exit_code=137, reason="OOMKilled")
    world.settle()
    told = world.tell()
    assert ("Warning", "MemoryRaised") in told
    assert ("Normal", "UpgradeStarted") not in told


def test_who_takes_our_fields_is_told() -> None:
    world = serving()
    take(world.deployment, "spec.replicas", by="their-autoscaler")
    world.yielding = frozenset(world.decide().contested)
    world.settle()
    assert world.tell() == [("Warning", "FieldsTaken")]


def test_a_webhook_that_may_be_meant_is_no_warning() -> None:
    world = Watched(spec(resources=GIVEN))
    world.settle()
    world.tell()
    world.deployment["spec"]["template"]["spec"]["initContainers"][0]["image"] = "mirror/slm-runtime:1"
    world.settle()
    assert world.tell() == [("Normal", "RewrittenAtAdmission")]


@pytest.mark.parametrize("reason", ["NameTaken", "WriteForbidden"])
def test_a_write_that_is_refused_is_told_once(reason: str) -> None:
    fault = Condition(
        type="Ready", status="False", reason=reason, message="its words", last_transition_time=START
    )
    after = Status(conditions=(fault, fault.model_copy(update={"type": "ModelReady"})))
    assert events(Status(), after) == (Event("Warning", reason, "its words"),)
    assert events(after, after) == ()


def test_an_earlier_version_that_told_no_revisions_had_told_what_serves() -> None:
    world = serving()
    after = parse_status(world.resource)
    before = after.model_copy(update={"revisions": None})
    assert events(before, after) == ()


def test_messages_have_the_api_server_s_length() -> None:
    fault = Condition(
        type="Ready", status="False", reason="X", message="x" * 4096, last_transition_time=START
    )
    (told,) = events(Status(), Status(conditions=(fault,)))
    assert len(told.message) == LIMIT
