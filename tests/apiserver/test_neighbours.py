"""Autoscalers and routes on a real API server with their projects' own CRDs; a person plays who scales."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slm_operator.plan import compare
from slm_operator.snapshot import Create
from tests.apiserver.api import PATHS, Api
from tests.apiserver.operator import Audit, Operator, slm, until
from tests.apiserver.test_rendered_objects import CREATE, _unmarked
from tests.apiserver.test_writes import wait_ready
from tests.cluster import ControlPlane, neighbour_crds
from tests.unit.operator_core.test_autoscaling import SITE, WAKER
from tests.unit.operator_core.test_gateway import POOL
from tests.unit.operator_core.world import GIVEN, World, node, spec

pytestmark = pytest.mark.apiserver

NEIGHBOURS = ("scaledobjects.keda.sh", "httproutes.gateway.networking.k8s.io")
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects"
OFFERED: dict[str, Any] = {"autoscaling": {"prometheus": "http://prometheus:9090"}, "gateways": True}


@pytest.fixture(scope="module")
def neighbours(plane: ControlPlane) -> Iterator[ControlPlane]:
    for manifest in neighbour_crds():
        plane.kubectl("apply", "--server-side", "-f", str(manifest))
    plane.established(*NEIGHBOURS, "inferencepools.inference.networking.k8s.io")
    yield plane
    for manifest in neighbour_crds():
        plane.kubectl("delete", "-f", str(manifest))


@pytest.fixture
def offering(neighbours: ControlPlane, tmp_path: Path) -> Iterator[Operator]:
    with Operator(neighbours, tmp_path, **OFFERED) as running:
        yield running


@pytest.mark.parametrize("metrics", ["ScaledObject", "MetricValueList", "ExternalMetricValueList"])
def test_what_the_api_server_fills_in_is_no_drift(
    neighbours: ControlPlane, namespace: str, metrics: str
) -> None:
    wanted = {"min": 0, "max": 4, "waker": WAKER} if metrics == "ScaledObject" else {"max": 4}
    asked = spec(
        resources=GIVEN, autoscaling=wanted, endpoint={"gateway": {**POOL, "hostnames": ["a.example"]}}
    )
    settings = SITE.model_copy(update={"gateways": True})
    world = World(asked, settings=settings, nodes=(node(memory="64Gi"),))
    world.resource["metadata"]["namespace"] = namespace
    world.served |= {"HTTPRoute", "InferencePool", metrics}
    made = {}
    for step in world.decide().plan.steps:
        if isinstance(step, Create) and step.ref.kind not in {"Secret", "ControllerRevision"}:
            live = json.loads(neighbours.kubectl(*CREATE, input=json.dumps(step.document)))
            (child,) = compare([_unmarked(step.document)], {step.ref: live})
            assert child.is_as_intended, (step.ref, child.differences)
            assert not child.differences.rewritten, step.ref
            made[step.ref.kind] = live
    assert {"HTTPRoute", "InferencePool", "Deployment"} < set(made)
    assert len(set(made) & {"ScaledObject", "HorizontalPodAutoscaler"}) == 1


def test_replicas_have_one_owner(offering: Operator, plane: ControlPlane, api: Api) -> None:
    """From the spec to the autoscaler and back, through a suspension: nobody is fought, and never is it 1 between."""

    def deployment() -> dict[str, Any]:
        return api.get("Deployment", "a") or {"spec": {}}

    def replicas() -> int:
        return int(deployment()["spec"].get("replicas", -1))

    def scaler() -> dict[str, Any] | None:
        found = api.send("GET", SCALED.format(api.namespace) + "/a")
        return None if found["kind"] == "Status" else found

    audit = Audit(plane)
    asked = slm("a", api.namespace, replicas=3)
    api.apply(asked)
    wait_ready(plane, api.namespace, "a")
    del asked["spec"]["replicas"]
    asked["spec"]["autoscaling"] = {"min": 1, "max": 5}
    api.apply(asked)
    until("a ScaledObject is made", scaler)
    assert replicas() == 3, "what ran goes on"
    plane.kubectl("-n", api.namespace, "scale", "deployment/a", "--replicas=5")
    until("it is told", lambda: (api.get("SLMDeployment", "a") or {})["status"].get("readyReplicas") == 5)
    until(
        "the field is the autoscaler's alone",
        lambda: (
            [
                each.get("subresource")
                for each in deployment()["metadata"]["managedFields"]
                if "f:replicas" in each["fieldsV1"].get("f:spec", {})
            ]
            == ["scale"]
        ),
    )
    audit.settled(api.namespace)
    assert replicas() == 5
    api.apply({**asked, "spec": {**asked["spec"], "suspend": True}})
    until("no pod is left", lambda: replicas() == 0)
    until("nor an autoscaler that would bring them back", lambda: scaler() is None)
    api.apply({**asked, "spec": {**asked["spec"], "suspend": False}})
    until("it runs again", lambda: replicas() == 1)
    until("and is scaled", scaler)
    del asked["spec"]["autoscaling"]
    api.apply({**asked, "spec": {**asked["spec"], "replicas": 2}})
    until("the spec says it again", lambda: replicas() == 2)
    until("the autoscaler is gone", lambda: scaler() is None)


def test_a_route_is_made_and_its_gateway_s_word_is_handed_on(offering: Operator, api: Api) -> None:
    gateway = {"parentRefs": [{"name": "public"}], "hostnames": ["models.example.com"]}
    api.apply(slm("a", api.namespace, endpoint={"gateway": gateway}))
    path = ROUTES.format(api.namespace) + "/a"
    until("a route is made", lambda: api.send("GET", path)["kind"] == "HTTPRoute")
    until("nobody has taken it yet", lambda: api.reason("a", "Routed") == "NotAccepted")
    accepted = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    parent = {
        "parentRef": {"name": "public"},
        "controllerName": "example.com/gateway",
        "conditions": [accepted],
    }
    body = {"status": {"parents": [parent]}}
    assert api.send("PATCH", path + "/status", body, "application/merge-patch+json")["kind"] == "HTTPRoute"
    until("its word is handed on", lambda: api.reason("a", "Routed") == "Accepted")


def test_rules_say_what_to_write_instead(api: Api) -> None:
    for changes, words in (
        ({"autoscaling": {"min": 0, "max": 2}}, "keepAlive"),
        ({"autoscaling": {"min": 3, "max": 2}}, "no more than max"),
        (
            {"endpoint": {"gateway": {"parentRefs": [{"name": "a"}], "backend": "InferencePool"}}},
            "endpointPickerRef",
        ),
    ):
        answer = api.send(
            "POST", PATHS["SLMDeployment"].format(api.namespace), slm("refused", api.namespace, **changes)
        )
        assert answer["kind"] == "Status", changes
        assert words in answer["message"]
