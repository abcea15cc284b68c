"""Children as they are built from a spec: Service, disruption budget, and what the containers ask for."""

from typing import Any

import pytest

from slm_operator.crd.resource import SLMDeployment, parse_resource
from slm_operator.desired.disruption import disruption_budget
from slm_operator.desired.service import service
from slm_operator.placement.devices import devices_wanted
from slm_operator.settings import ResourceRequest
from tests.unit.operator_core.world import CPU, GIVEN, GPU, SMOLLM2, World, node, spec

MIB = 1 << 20


def resource(**changes: Any) -> SLMDeployment:
    return parse_resource(World(spec(**changes)).resource)


def containers(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fetch and the serve container of the Deployment."""
    pod = world.deployment["spec"]["template"]["spec"]
    return pod["initContainers"][0], pod["containers"][0]


def fitted(**changes: Any) -> World:
    """A world in which the model was looked at, so that its size is known."""
    world = World(spec(**changes))
    world.settle()
    world.finish_job("inspect")
    world.settle()
    return world


def storage(container: dict[str, Any]) -> str | None:
    found: str | None = container["resources"]["requests"].get("ephemeral-storage")
    assert "ephemeral-storage" not in container["resources"]["limits"]
    return found


def test_a_service_carries_what_load_balancers_read() -> None:
    made = service(
        resource(
            endpoint={
                "type": "LoadBalancer",
                "annotations": {"example.com/internal": "true"},
                "loadBalancerClass": "example.com/lb",
                "loadBalancerSourceRanges": ["10.0.0.0/8"],
            }
        )
    )
    assert made["metadata"]["annotations"] == {"example.com/internal": "true"}
    assert made["spec"]["loadBalancerClass"] == "example.com/lb"
    assert made["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8"]


def test_a_service_carries_nothing_that_is_not_asked_for() -> None:
    made = service(resource(endpoint={"annotations": {"slm-operator.io/intent": "forged"}}))
    assert "annotations" not in made["metadata"]
    assert set(made["spec"]) == {"type", "selector", "ports"}


@pytest.mark.parametrize("changes", [{}, {"replicas": 0}, {"replicas": 3, "suspend": True}])
def test_one_replica_is_in_the_way_of_no_drain(changes: dict[str, Any]) -> None:
    assert disruption_budget(resource(**changes)) is None


def test_of_several_replicas_a_drain_takes_one_at_a_time() -> None:
    budget = disruption_budget(resource(replicas=2))
    assert budget is not None
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    world = World(spec(replicas=2, resources=GIVEN))
    world.settle()
    pods = world.deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= pods.items()


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({}, 2),
        ({"limits": {"nvidia.com/gpu": 4}}, 4),
        ({"limits": {"nvidia.com/gpu": "4"}}, 4),
        ({"requests": {"nvidia.com/gpu": 3}}, 3),
        ({"limits": {"nvidia.com/gpu": 1}}, 2),
        ({"limits": {"amd.com/gpu": 4}}, 2),
    ],
)
def test_a_spec_may_ask_for_more_devices_than_the_class(resources: dict[str, Any], count: int) -> None:
    two = GPU.model_copy(update={"resource": ResourceRequest(name="nvidia.com/gpu", count=2)})
    assert devices_wanted(resource(resources=resources), two) == count
    assert devices_wanted(resource(resources=resources), CPU) == 0


def test_the_pod_gets_the_devices_that_the_spec_asks_for() -> None:
    limits = {"memory": "1Gi", "nvidia.com/gpu": 2}
    wanted = spec(resources={"limits": limits}, hardware={"preference": ["gpu"]})
    world = World(wanted, nodes=(node(nvidia_com__gpu="2"),))
    world.settle()
    resources = containers(world)[1]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"


def test_a_pod_is_placed_where_there_is_disk_for_its_model() -> None:
    world = fitted()
    volumes = {each["name"]: each for each in world.deployment["spec"]["template"]["spec"]["volumes"]}
    limits = [int(volumes[name]["emptyDir"]["sizeLimit"].removesuffix("Mi")) for name in ("models", "tmp")]
    assert limits[0] * MIB > SMOLLM2.size_bytes
    assert {storage(each) for each in containers(world)} == {f"{sum(limits)}Mi"}


def test_a_model_in_a_claim_takes_no_disk_of_the_node() -> None:
    world = World(spec(resources=GIVEN, cache={"claimName": "models"}))
    world.settle()
    world.finish_job("pull")
    world.settle()
    assert {storage(each) for each in containers(world)} == {"256Mi"}


def test_a_model_of_unknown_size_asks_for_no_disk() -> None:
    """A bound is no need: asking for 32Gi would keep it off most nodes."""
    world = World(spec(resources=GIVEN))
    world.settle()
    assert {storage(each) for each in containers(world)} == {"256Mi"}


def test_disk_that_the_spec_gives_is_what_the_pod_gets() -> None:
    given = {"memory": "1Gi", "ephemeral-storage": "1Gi"}
    world = World(spec(resources={"limits": given}))
    world.settle()
    resources = containers(world)[1]["resources"]
    assert resources["limits"]["ephemeral-storage"] == "1Gi"
    assert "ephemeral-storage" not in resources["requests"], "Kubernetes takes the limit"
