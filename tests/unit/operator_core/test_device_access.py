"""What pods of a class need to get at its device, beside an extended resource."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from slm_operator.settings import HardwareClass
from tests.unit.operator_core.world import CPU, GIVEN, SETTINGS, World, node, spec

CLAIMED = HardwareClass(
    name="gpu-claimed",
    family="gpu",
    node_selector={"corp.example/gpu": "yes"},
    resource_claim_template="one-gpu",
    runtime_class_name="nvidia",
    supplemental_groups=(44, 105),
    env={"GGML_VK_VISIBLE_DEVICES": "0", "A": "class"},
    provider="vulkan",
    gpu_layers=-1,
)


def deployed(**changes: Any) -> World:
    world = World(
        spec(hardware={"preference": ["gpu", "cpu"]}, resources=GIVEN, **changes),
        settings=SETTINGS.model_copy(update={"classes": (CLAIMED, CPU)}),
        nodes=[replace(node("a"), labels={"corp.example/gpu": "yes"})],
    )
    world.settle()
    return world


def pod(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.deployment["spec"]["template"]["spec"]
    return found


def test_a_class_may_ask_by_claim() -> None:
    found = pod(deployed())
    (serve,) = found["containers"]
    assert found["resourceClaims"] == [{"name": "device", "resourceClaimTemplateName": "one-gpu"}]
    assert serve["resources"]["claims"] == [{"name": "device"}]
    assert "claims" not in found["initContainers"][0]["resources"]


def test_a_claimed_device_is_given_back_before_the_next_pod_asks_for_it() -> None:
    assert deployed().deployment["spec"]["strategy"]["type"] == "Recreate"
    two = deployed(replicas=2).deployment["spec"]["strategy"]
    assert two["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_the_class_says_by_what_and_in_which_groups_its_pods_run() -> None:
    found = pod(deployed())
    assert found["runtimeClassName"] == "nvidia"
    assert found["securityContext"]["supplementalGroups"] == [44, 105]


def test_the_spec_goes_before_the_class() -> None:
    world = deployed(
        podTemplate={"runtimeClassName": "own"}, runtime={"env": [{"name": "A", "value": "spec"}]}
    )
    found = pod(world)
    assert found["runtimeClassName"] == "own"
    (serve,) = found["containers"]
    told = {each["name"]: each["value"] for each in serve["env"]}
    assert (told["GGML_VK_VISIBLE_DEVICES"], told["A"]) == ("0", "spec")
    fetched = {each["name"] for each in found["initContainers"][0]["env"]}
    assert not fetched & CLAIMED.env.keys()


def test_a_class_without_any_of_it_has_none_of_it() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    found = pod(world)
    assert not found.keys() & {"runtimeClassName", "resourceClaims"}
    assert "supplementalGroups" not in found["securityContext"]
    assert "claims" not in found["containers"][0]["resources"]


def test_a_class_asks_in_one_way() -> None:
    both = {"name": "g", "family": "gpu", "resource": {"name": "a.b/c"}, "resourceClaimTemplate": "t"}
    with pytest.raises(ValidationError, match="by resource or by resourceClaimTemplate"):
        HardwareClass.model_validate(both)
