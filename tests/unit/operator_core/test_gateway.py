"""Routes for the cluster's gateways, and what is told of them."""

from typing import Any

import pytest

from slm_operator.snapshot import ChildRef
from tests.unit.operator_core.world import GIVEN, SETTINGS, World, spec

SITE = SETTINGS.model_copy(update={"gateways": True})
PARENTS = {"parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}]}
POOL = {**PARENTS, "backend": "InferencePool", "endpointPickerRef": {"name": "picker"}}
ROUTE = ChildRef("HTTPRoute", "smollm2")


def world_of(gateway: dict[str, Any], *served: str, settings: Any = SITE) -> World:
    world = World(spec(resources=GIVEN, endpoint={"gateway": gateway}), settings=settings)
    world.served |= set(served)
    world.settle()
    return world


def routed(world: World) -> tuple[str, str]:
    found = {each["type"]: each for each in world.status["conditions"]}["Routed"]
    return found["status"], found["reason"]


def answer(world: World, status: str, reason: str) -> None:
    told = {"type": "Accepted", "status": status, "reason": reason, "message": "as the gateway says"}
    world.children[ROUTE]["status"] = {"parents": [{"parentRef": {"name": "public"}, "conditions": [told]}]}
    world.settle()


def test_a_route_leads_to_the_service_and_cuts_no_stream() -> None:
    world = world_of({**PARENTS, "hostnames": ["models.example.com"]}, "HTTPRoute")
    route = world.children[ROUTE]["spec"]
    assert route["parentRefs"] == PARENTS["parentRefs"]
    assert route["hostnames"] == ["models.example.com"]
    assert route["rules"] == [
        {"backendRefs": [{"name": "smollm2", "port": 8080}], "timeouts": {"request": "0s"}}
    ]


def test_a_pool_selects_the_serving_pods() -> None:
    world = world_of(POOL, "HTTPRoute", "InferencePool")
    pool = world.children[ChildRef("InferencePool", "smollm2")]["spec"]
    pods = world.deployment["spec"]["template"]["metadata"]["labels"]
    assert pool["selector"]["matchLabels"].items() <= pods.items()
    serve = world.deployment["spec"]["template"]["spec"]["containers"][0]
    assert pool["targetPorts"][0]["number"] in {each["containerPort"] for each in serve["ports"]}
    assert pool["endpointPickerRef"]["name"] == "picker"
    assert world.children[ROUTE]["spec"]["rules"][0]["backendRefs"][0]["kind"] == "InferencePool"


@pytest.mark.parametrize(
    ("gateway", "served", "settings", "reason"),
    [
        (PARENTS, ("HTTPRoute",), SETTINGS, "NotOffered"),
        (PARENTS, (), SITE, "KindMissing"),
        (POOL, ("HTTPRoute",), SITE, "KindMissing"),
    ],
)
def test_what_is_missing_is_named_and_the_model_serves(
    gateway: dict[str, Any], served: tuple[str, ...], settings: Any, reason: str
) -> None:
    world = world_of(gateway, *served, settings=settings)
    assert routed(world) == ("False", reason)
    assert ROUTE not in world.children
    assert ChildRef("Deployment", "smollm2") in world.children


def test_the_gateway_s_word_is_handed_on() -> None:
    world = world_of(PARENTS, "HTTPRoute")
    assert routed(world) == ("Unknown", "NotAccepted")
    answer(world, "False", "NotAllowedByListeners")
    assert routed(world) == ("False", "NotAllowedByListeners")
    answer(world, "True", "Accepted")
    assert routed(world) == ("True", "Accepted")


def test_nothing_of_a_pod_changes_by_a_gateway() -> None:
    plain = World(spec(resources=GIVEN), settings=SITE)
    plain.settle()
    template = world_of(PARENTS, "HTTPRoute").deployment["spec"]["template"]
    assert template == plain.deployment["spec"]["template"]
