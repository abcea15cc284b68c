"""Autoscalers: which one is made, how it is set up, and whose the replicas are."""

import json
from typing import Any

import pytest

from slm_contract import metrics
from slm_operator.desired.autoscaler import autoscaler
from slm_operator.settings import AutoscalingSettings
from slm_operator.snapshot import Apply, ChildRef
from slm_operator.target.scaling import Means
from tests.unit.operator_core.test_builders import resource
from tests.unit.operator_core.world import GIVEN, SETTINGS, World, node, spec

PROMETHEUS = "http://prometheus.monitoring:9090"
SITE = SETTINGS.model_copy(update={"autoscaling": AutoscalingSettings(prometheus=PROMETHEUS)})
DEPLOYMENT = ChildRef("Deployment", "smollm2")
WAKER = {"type": "external-push", "metadata": {"scalerAddress": "scaler.keda:9090"}}


def scaling_world(*served: str, settings: Any = SITE, memory: str = "64Gi", **changes: Any) -> World:
    asked = {"resources": GIVEN, "autoscaling": {"max": 4}, **changes}
    world = World(spec(**asked), settings=settings, nodes=(node(memory=memory),))
    world.served |= set(served)
    world.settle()
    return world


def scale(world: World, replicas: int) -> None:
    """As an autoscaler does, through the Deployment's scale: the field is its own from then on."""
    live = world.children[DEPLOYMENT]
    live["spec"]["replicas"] = replicas
    (ours,) = (each for each in live["metadata"]["managedFields"] if not each.get("subresource"))
    fields = json.loads(ours["fieldsV1"])
    fields["f:spec"].pop("f:replicas", None)
    theirs = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale"}
    live["metadata"]["managedFields"] = [
        {**ours, "fieldsV1": json.dumps(fields)},
        {**theirs, "fieldsV1": json.dumps({"f:spec": {"f:replicas": {}}})},
    ]
    world.settle()


def condition(world: World, kind: str) -> tuple[str, str]:
    found = {each["type"]: each for each in world.status["conditions"]}
    return found[kind]["status"], found[kind]["reason"]


@pytest.mark.parametrize(
    ("served", "kind", "reason"),
    [
        ((), None, "MetricsAPIMissing"),
        (("ScaledObject", "MetricValueList"), "ScaledObject", "ScaledObjectMade"),
        (("MetricValueList",), "HorizontalPodAutoscaler", "HorizontalPodAutoscalerMade"),
        (("ExternalMetricValueList",), "HorizontalPodAutoscaler", "HorizontalPodAutoscalerMade"),
    ],
)
def test_what_the_cluster_serves_says_by_what_it_is_scaled(
    served: tuple[str, ...], kind: str | None, reason: str
) -> None:
    world = scaling_world(*served)
    made = {ref.kind for ref in world.children} & {"ScaledObject", "HorizontalPodAutoscaler"}
    assert made == ({kind} if kind else set())
    assert condition(world, "Autoscaled") == ("True" if kind else "False", reason)


@pytest.mark.parametrize(
    ("changes", "served", "reason"),
    [
        ({"settings": SETTINGS}, "ScaledObject", "NotOffered"),
        (
            {"settings": SETTINGS.model_copy(update={"autoscaling": AutoscalingSettings()})},
            "ScaledObject",
            "PrometheusUnknown",
        ),
        ({"autoscaling": {"min": 0, "max": 2, "waker": WAKER}}, "MetricValueList", "WakerNeedsKEDA"),
        ({"memory": "2Gi"}, "ScaledObject", "RoomForFewer"),
    ],
)
def test_why_it_is_not_scaled_as_asked_is_told(changes: dict[str, Any], served: str, reason: str) -> None:
    world = scaling_world(served, **changes)
    assert condition(world, "Autoscaled") == ("False", reason)
    assert DEPLOYMENT in world.children


def test_keda_asks_for_this_deployment_s_pods_and_no_other_s() -> None:
    wanted = resource(autoscaling={"min": 0, "max": 3, "waker": WAKER}, runtime={"parallel": 8})
    made = autoscaler(wanted, SITE, Means.KEDA, None)
    assert made is not None
    waiting, running, waker = made["spec"]["triggers"]
    pods = 'namespace="demo",pod=~"smollm2-[0-9a-z]{1,10}-[0-9a-z]{5}"'
    assert waiting["metadata"]["query"] == f"sum({metrics.WAITING}{{{pods}}})"
    assert (waiting["metadata"]["threshold"], running["metadata"]["threshold"]) == ("1", "6.4")
    assert {each["metadata"]["ignoreNullValues"] for each in (waiting, running)} == {"false"}
    assert waker == WAKER
    assert made["spec"]["minReplicaCount"] == 0
    assert "fallback" not in made["spec"]


@pytest.mark.parametrize(
    ("load", "period", "window"), [(None, 60, 300), (3.0, 15, 300), (40, 60, 300), (200, 240, 960)]
)
def test_no_more_replicas_are_asked_for_before_the_last_could_have_loaded(
    load: float | None, period: int, window: int
) -> None:
    made = autoscaler(resource(autoscaling={"max": 3}), SITE, Means.POD_METRICS, load)
    assert made is not None
    behavior = made["spec"]["behavior"]
    assert behavior["scaleUp"]["policies"][0]["periodSeconds"] == period
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == window


def test_replicas_that_an_autoscaler_has_written_are_its_own() -> None:
    world = scaling_world("MetricValueList", replicas=3, autoscaling={"min": 2, "max": 4})
    assert world.deployment["spec"]["replicas"] == 3
    scale(world, 4)
    assert world.deployment["spec"]["replicas"] == 4
    assert not world.decide().plan, "nothing is written any more"
    assert world.status["display"]["ready"].endswith("/4")


def test_before_it_has_they_stay_within_its_bounds() -> None:
    world = scaling_world("MetricValueList", replicas=3, autoscaling=None)
    world.resource["spec"]["autoscaling"] = {"min": 1, "max": 4}
    world.resource["spec"]["replicas"] = 1
    steps = [each for each in world.decide().plan.steps if isinstance(each, Apply) and each.ref == DEPLOYMENT]
    assert [each.document["spec"]["replicas"] for each in steps] in ([], [3])
    world.settle()
    assert world.deployment["spec"]["replicas"] == 3


def test_suspending_takes_pods_and_autoscaler_away_and_resuming_brings_them_back() -> None:
    world = scaling_world("ScaledObject", autoscaling={"min": 2, "max": 4})
    scale(world, 3)
    world.resource["spec"]["suspend"] = True
    world.settle()
    assert world.deployment["spec"]["replicas"] == 0
    assert ChildRef("ScaledObject", "smollm2") not in world.children
    world.resource["spec"]["suspend"] = False
    world.settle()
    assert world.deployment["spec"]["replicas"] == 2
    assert ChildRef("ScaledObject", "smollm2") in world.children


def test_without_autoscaling_the_spec_says_it_again() -> None:
    world = scaling_world("MetricValueList", replicas=2, autoscaling={"max": 4})
    scale(world, 4)
    del world.resource["spec"]["autoscaling"]
    world.settle()
    assert world.deployment["spec"]["replicas"] == 2
    assert ChildRef("HorizontalPodAutoscaler", "smollm2") not in world.children


def test_what_the_autoscaler_says_of_itself_is_told() -> None:
    world = scaling_world("MetricValueList")
    ailing = {
        "type": "ScalingActive",
        "status": "False",
        "reason": "FailedGetPodsMetric",
        "message": "no metrics",
    }
    world.children[ChildRef("HorizontalPodAutoscaler", "smollm2")]["status"] = {"conditions": [ailing]}
    world.settle()
    assert condition(world, "Autoscaled") == ("False", "ScalerFails")


def test_figures_that_are_gone_take_no_replica_away() -> None:
    """An adapter that is started anew lists no metric for a while."""
    world = scaling_world("MetricValueList")
    scale(world, 3)
    world.served.clear()
    assert not world.decide().plan


def test_where_nothing_scales_it_the_spec_says_how_many() -> None:
    world = scaling_world(replicas=2)
    assert world.deployment["spec"]["replicas"] == 2
    world.edit(replicas=3)
    world.settle()
    assert world.deployment["spec"]["replicas"] == 3


def test_a_drain_takes_one_of_as_many_as_there_may_be() -> None:
    assert ChildRef("PodDisruptionBudget", "smollm2") in scaling_world("ScaledObject").children
