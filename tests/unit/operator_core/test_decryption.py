"""`spec.model.decryption`: the identity reaches what fetches alone, and the model in plain has room in memory."""

from typing import Any

import pytest

from slm_contract import places
from slm_operator.crd.quantities import parse_quantity
from tests.unit.operator_core.world import GIVEN, SMOLLM2, World, spec

SOURCE = "https://models.example.com/m.gguf.age"
MODEL = {
    "source": SOURCE,
    "sha256": "f" * 64,
    "decryption": {"secretRef": {"name": "identity", "key": "identity.txt"}},
}
ENCRYPTED = SMOLLM2.model_copy(update={"encrypted": True, "size_bytes": 1 << 30, "weights_bytes": 1 << 30})


def pod(world: World) -> dict[str, Any]:
    template: dict[str, Any] = world.deployment["spec"]["template"]["spec"]
    return template


def mounts(container: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    return {
        each["name"]: (each["mountPath"], each.get("readOnly", False)) for each in container["volumeMounts"]
    }


def memory(container: dict[str, Any], kind: str = "limits") -> int:
    return int(parse_quantity(container["resources"][kind]["memory"]))


def inspected(**changes: Any) -> World:
    world = World(spec(model=MODEL, **changes))
    world.settle()
    world.finish_job("inspect", ENCRYPTED)
    world.settle()
    return world


def test_a_pod_has_its_model_in_plain_in_memory() -> None:
    template = pod(inspected())
    (fetch,), (serve,) = template["initContainers"], template["containers"]
    assert mounts(fetch)["plain"] == (places.PLAIN_DIR, False)
    assert mounts(serve)["plain"] == (places.PLAIN_DIR, True)
    assert mounts(fetch)["identities"] == (places.IDENTITIES.rpartition("/")[0], True)
    assert "identities" not in mounts(serve)
    volumes = {each["name"]: each for each in template["volumes"]}
    assert volumes["plain"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1025Mi"}
    assert volumes["identities"]["secret"] == {
        "secretName": "identity",
        "items": [{"key": "identity.txt", "path": "identities.txt"}],
        "defaultMode": 0o440,
    }


def test_it_has_room_for_the_file_and_for_what_is_made_of_it() -> None:
    world = inspected()
    (fetch,), (serve,) = pod(world)["initContainers"], pod(world)["containers"]
    plain = World(spec(model={"source": SOURCE}))
    plain.settle()
    plain.finish_job("inspect", ENCRYPTED.model_copy(update={"encrypted": False}))
    plain.settle()
    (without,) = pod(plain)["containers"]
    assert memory(serve) - memory(without) > 1 << 30
    assert memory(fetch) == memory(serve), "who writes it has it in his account"
    assert "decrypted file 1.0 GiB" in world.status["memory"]["explanation"]
    assert "decrypted" not in plain.status["memory"]["explanation"]


def test_memory_that_the_spec_gives_is_the_fetch_s_too() -> None:
    resources = {"requests": {"memory": "1Gi"}, "limits": {"memory": "3Gi"}}
    world = World(spec(model=MODEL, resources=resources))
    world.settle()
    (fetch,) = pod(world)["initContainers"]
    assert (memory(fetch, "requests"), memory(fetch)) == (1 << 30, 3 << 30)
    (volume,) = (each for each in pod(world)["volumes"] if each["name"] == "plain")
    assert volume["emptyDir"] == {"medium": "Memory"}, "its size isn't known"


@pytest.mark.parametrize(
    ("purpose", "cache"), [("inspect", {}), ("pull", {"mode": "PVC", "size": "5Gi"})], ids=["inspect", "pull"]
)
def test_jobs_read_the_header_and_write_nothing_in_plain(purpose: str, cache: dict[str, Any]) -> None:
    world = inspected(cache=cache) if purpose == "pull" else World(spec(model=MODEL, cache=cache))
    world.settle()
    template = world.job(purpose)["spec"]["template"]["spec"]
    assert "identities" in mounts(template["containers"][0])
    assert "plain" not in mounts(template["containers"][0])
    assert "plain" not in {each["name"] for each in template["volumes"]}
    assert memory(template["containers"][0]) == 256 << 20


def test_who_names_no_identity_has_pods_as_before() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    names = {each["name"] for each in pod(world)["volumes"]}
    assert not names & {"plain", "identities"}
    assert memory(pod(world)["initContainers"][0]) == 256 << 20
