"""`kubectl slm why`: one sentence and a remedy, out of every status that the operator makes."""

import re
from typing import Any

import pytest

from kubectl_slm.explain import explain
from slm_contract.places import ExitCode
from slm_contract.report import Failure, FailureReason, FetchReport
from tests.contract.test_troubleshooting import PAGE
from tests.unit.operator_core.world import GIVEN, World, gpu_node, node, spec

GUIDE = re.sub(r"\n## (Events|By hand).*", "", PAGE, flags=re.DOTALL)


def status(*conditions: tuple[str, str, str, str], **more: Any) -> dict[str, Any]:
    told = [dict(zip(("type", "status", "reason", "message"), each, strict=True)) for each in conditions]
    return {
        "metadata": {"name": "a", "namespace": "demo", "generation": 1},
        "spec": {"model": {"source": "s"}},
        "status": {"observedGeneration": 1, "conditions": told, **more},
    }


def explained(world: World) -> tuple[str, str, str]:
    found = explain(world.resource)
    return found.state, found.reason, found.remedy


def fetching(reason: FailureReason) -> World:
    """One whose fetch has failed for good."""
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods(ready=False, facts=None)
    failure = Failure(reason=reason, message=f"it is {reason}; it says so", remedy="do this", permanent=True)
    report = FetchReport(command="fetch", failure=failure)
    world.fail("fetch", report.to_json(), exit_code=ExitCode.FETCH_PERMANENT)
    world.settle()
    return world


@pytest.mark.parametrize("reason", [each for each in FailureReason if each.value in GUIDE])
def test_what_the_runtime_reports_is_said_with_its_remedy(reason: FailureReason) -> None:
    found = explain(fetching(reason).resource)
    assert (found.state, found.reason) == ("broken", reason.value)
    assert found.sentence.endswith(f"it is {reason}; it says so")
    assert found.remedy == "do this"


@pytest.mark.parametrize(
    ("wanted", "nodes", "reason"),
    [
        (spec(model={"source": "nonsense://x"}), (node(),), "SourceInvalid"),
        (spec(model={"source": "catalog://nothing"}), (node(),), "NotInCatalog"),
        (spec(hardware={"preference": ["gpu"]}), (node(),), "NoHardware"),
        (spec(hardware={"preference": ["tpu"]}), (node(),), "UnknownHardware"),
        (spec(runtime={"image": "elsewhere/x:1"}, resources=GIVEN), (node(),), "ImageNotAllowed"),
        (spec(cache={"mode": "NodeLocal"}, resources=GIVEN), (node(),), "CacheNotOffered"),
        (spec(replicas="three"), (node(),), "SpecInvalid"),
    ],
)
def test_what_the_operator_refuses_is_said_with_its_remedy(
    wanted: dict[str, Any], nodes: Any, reason: str
) -> None:
    world = World(wanted, nodes=nodes)
    world.settle()
    state, said, remedy = explained(world)
    assert (state, said) == ("broken", reason)
    assert remedy
    assert remedy not in explain(world.resource).sentence


def test_classes_that_were_passed_over_are_named() -> None:
    world = World(spec(hardware={"preference": ["npu", "gpu"]}), nodes=(node(),))
    world.settle()
    assert [each.partition(":")[0] for each in explain(world.resource).more] == ["npu-intel", "gpu-nvidia"]


def test_what_takes_its_time_is_no_failure() -> None:
    world = World(spec())
    world.settle()
    assert explained(world) == ("waiting", "Inspecting", "")
    world.finish_job("inspect")
    world.settle()
    assert explained(world)[:2] == ("waiting", "Starting")
    world.run_pods()
    world.settle()
    assert explained(world) == ("good", "Serving", "")


def test_a_revision_that_was_given_up_is_broken_though_the_one_before_serves() -> None:
    told = status(
        ("Ready", "True", "RolledBack", "it crashed"),
        ("Stalled", "True", "RolledBack", "it crashed; correct the spec"),
    )
    found = explain(told)
    assert (found.state, found.remedy, found.more) == ("broken", "correct the spec", ())
    assert "the revision before serves on" in found.sentence


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (
            ("MemoryFits", "False", "LessThanEstimated", "2 GiB are given, 3 are needed"),
            "raise spec.resources",
        ),
        (("Accelerated", "False", "Degraded", "placed on gpu, it runs on cpu"), "drivers and device plugin"),
        (("MonitoringReady", "False", "KindMissing", "no ServiceMonitor"), "Prometheus Operator"),
        (("SourceDrifted", "True", "SourceMoved", "main stands for b now"), "stands for b"),
        (("Contended", "True", "FieldsTaken", "helm changes spec.replicas; say so there"), "helm changes"),
        (("Refused", "True", "PodTemplateClash", "it names serve; leave it out"), "leave it out"),
    ],
)
def test_what_is_wrong_beside_a_model_that_serves_is_said_too(
    condition: tuple[str, str, str, str], said: str
) -> None:
    found = explain(status(("Ready", "True", "Serving", "m is served by all replicas"), condition))
    assert found.state == "good"
    (line,) = found.more
    assert line.startswith(f"{condition[2]}: {condition[3]}")
    assert said in line


def test_what_no_operator_has_seen_is_said() -> None:
    fresh = status()
    fresh["status"] = {"observedGeneration": -1}
    assert explain(fresh).reason == "Unseen"
    assert "operator runs" in explain(fresh).remedy
    edited = status(("Ready", "True", "Serving", "m is served"))
    edited["metadata"]["generation"] = 2
    assert "earlier spec" in explain(edited).more[0]


def test_a_model_that_asks_for_more_than_a_node_has_names_the_sum() -> None:
    world = World(spec(), nodes=(gpu_node(memory="100Mi"), node(memory="100Mi")))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    found = explain(world.resource)
    assert (found.state, found.reason) == ("broken", "DoesNotFit")
    assert found.remedy
