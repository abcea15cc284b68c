"""A model in a claim: which others stay there, what status says of those that go, and claims that are only read."""

import copy
import hashlib
from typing import Any

import pytest
from pydantic import ValidationError

from slm_contract import places
from slm_contract.report import FetchReport
from slm_contract.retention import Removed, Retention
from slm_contract.source import SourcePin
from slm_operator.crd.resource import parse_status
from slm_operator.model.known import runtime_config
from slm_operator.observed.clues import needs_clue
from slm_operator.settings import Settings
from slm_operator.snapshot import ChildRef
from slm_operator.status.events import events
from tests.unit.operator_core.world import GIVEN, SETTINGS, SMOLLM2, World, gpu_node, node, spec

OWN = {"mode": "PVC", "size": "2Gi"}
SHARED = {"claimName": "shared"}
DAY = 86400


def model(name: str) -> dict[str, Any]:
    """One whose checksum is known: its source needn't be asked first."""
    return {
        "source": f"https://models.example.com/{name}.gguf",
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
    }


def pulling(name: str = "first", cache: dict[str, Any] = OWN, **changes: Any) -> World:
    """The pull Job of a first model is there."""
    world = World(spec(**{"cache": cache, "resources": GIVEN, "model": model(name), **changes}))
    world.settle()
    return world


def roll_out(world: World, *, ready: bool = True) -> None:
    """The pull succeeds, and its model's pods come; where they are ready, they are seen to serve."""
    world.finish_job("pull")
    world.settle()
    world.run_pods(ready=ready)
    world.settle()


def take(world: World, name: str) -> None:
    world.edit(model=model(name))
    world.settle()


def told(world: World) -> Retention | None:
    """What the pull Job was told of other models."""
    (container,) = world.job("pull")["spec"]["template"]["spec"]["containers"]
    texts = [each["value"] for each in container["env"] if each["name"] == places.RETENTION_ENV]
    return Retention.model_validate_json(texts[0]) if texts else None


def folder(document: dict[str, Any]) -> str:
    config = runtime_config(document["spec"]["template"]["spec"])
    assert config is not None
    return config.model.folder


# What stays.


def test_a_first_model_is_all_that_a_claim_keeps() -> None:
    world = pulling()
    assert told(world) == Retention(keep=(folder(world.job("pull")),), grace_seconds=0)


def test_what_a_pull_tells_of_its_model_is_no_reason_to_pull_it_again() -> None:
    """Its fetch says which bytes the source stood for, also where a checksum had said it before."""
    world = pulling()
    world.finish_job("pull", SMOLLM2.model_copy(update={"pin": SourcePin(digest=64 * "1")}))
    world.settle()
    assert folder(world.deployment)
    assert "Job" not in world.kinds()


def test_another_model_is_pulled_beside_the_one_that_serves() -> None:
    world = pulling()
    roll_out(world)
    take(world, "second")
    retention = told(world)
    assert retention is not None
    assert set(retention.keep) == {folder(world.deployment), folder(world.job("pull"))}


def test_a_model_before_the_one_that_serves_goes() -> None:
    world = pulling()
    first = folder(world.job("pull"))
    roll_out(world)
    take(world, "second")
    roll_out(world)
    take(world, "third")
    retention = told(world)
    assert retention is not None
    assert set(retention.keep) == {folder(world.deployment), folder(world.job("pull"))}
    assert first not in retention.keep


def test_a_model_that_may_be_gone_back_to_stays() -> None:
    """The second was never served when the third is asked for: the first may have to serve again."""
    world = pulling()
    first = folder(world.job("pull"))
    roll_out(world)
    take(world, "second")
    roll_out(world, ready=False)
    second = folder(world.deployment)
    take(world, "third")
    retention = told(world)
    assert retention is not None
    assert set(retention.keep) == {first, second, folder(world.job("pull"))}


def test_all_that_the_spec_names_stays_whatever_class_runs() -> None:
    """A device that comes and goes must not have its model fetched each time."""
    variants = [{"hardware": "gpu", **model("for-gpu")}]
    world = World(
        spec(
            cache=OWN,
            resources=GIVEN,
            model={**model("for-all"), "variants": variants},
            hardware={"preference": ["gpu", "cpu"]},
        ),
        nodes=(node(), gpu_node()),
    )
    world.settle()
    retention = told(world)
    assert retention is not None
    assert len(retention.keep) == 2
    assert folder(world.job("pull")) in retention.keep


@pytest.mark.parametrize(
    ("cache", "grace"),
    [
        (OWN, 0),
        (OWN | {"unusedModels": "Delete"}, 0),
        (OWN | {"unusedModels": "Retain"}, None),
        (SHARED, None),
        (SHARED | {"unusedModels": "Retain"}, None),
        (SHARED | {"unusedModels": "Delete"}, DAY),
        (SHARED | {"unusedModels": "Delete", "accessModes": ["ReadOnlyMany"]}, None),
    ],
)
def test_what_becomes_of_unused_models(cache: dict[str, Any], grace: float | None) -> None:
    retention = told(pulling(cache=cache))
    assert (None if retention is None else retention.grace_seconds) == grace


def test_consent_on_a_full_volume_reaches_the_pull_that_fails() -> None:
    world = pulling(cache=OWN | {"unusedModels": "Retain"})
    before = world.job("pull")["metadata"]["name"]
    world.edit(cache=OWN)
    world.settle()
    assert world.job("pull")["metadata"]["name"] != before
    assert told(world) is not None


def test_pods_know_nothing_of_it_and_an_edit_rolls_none() -> None:
    world = pulling()
    roll_out(world)
    before = copy.deepcopy(world.deployment)
    assert places.RETENTION_ENV not in str(before)
    for unused in ("Retain", "Delete"):
        world.edit(cache=OWN | {"unusedModels": unused})
        world.settle()
        assert world.deployment["spec"] == before["spec"]
        assert [ref.kind for ref in world.children].count("ControllerRevision") == 1


def test_a_default_that_is_written_down_rolls_none() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.deployment)
    world.edit(cache={"unusedModels": "Delete"})
    world.settle()
    assert world.deployment["spec"] == before["spec"]
    assert [ref.kind for ref in world.children].count("ControllerRevision") == 1


# What is said of those that went.


def finish_with_removal(world: World, removed: Removed, time: str) -> None:
    world.finish_job("pull")
    pod = world.pods[-1]
    report = FetchReport(command="fetch", model=SMOLLM2, removed=removed)
    ended = {"exitCode": 0, "message": report.to_json(), "finishedAt": time}
    pod["status"]["containerStatuses"][0]["state"] = {"terminated": ended}


def test_what_has_left_the_claim_is_told_once_and_remembered() -> None:
    world = pulling()
    roll_out(world)
    assert "removed" not in world.status["cache"]
    before = parse_status(world.resource)
    take(world, "second")
    finish_with_removal(world, Removed(models=2, bytes=3 << 30), "2026-01-01T00:02:00Z")
    world.settle()
    removed = {"models": 2, "bytes": 3 << 30, "time": "2026-01-01T00:02:00Z"}
    assert world.status["cache"]["removed"] == removed
    (event,) = (
        each for each in events(before, parse_status(world.resource)) if each.reason == "UnusedModelsRemoved"
    )
    assert event.type == "Normal"
    assert event.message == "2 models (3.0 GiB) that nothing uses any more left the claim smollm2-models"
    before = parse_status(world.resource)
    world.run_pods()
    world.settle()
    assert world.status["cache"]["removed"] == removed, "also when the Job is gone"
    assert all(each.reason != "UnusedModelsRemoved" for each in events(before, parse_status(world.resource)))


def test_room_that_was_made_in_vain_is_told_as_well() -> None:
    world = pulling()
    world.finish_job("pull")
    pod = world.pods[-1]
    report = FetchReport(command="fetch", removed=Removed(models=1, bytes=5 << 20))
    ended = {"exitCode": 21, "message": report.to_json(), "finishedAt": "2026-01-01T00:02:00Z"}
    world.job("pull")["status"] = {"active": 1}
    pod["status"] = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "fetch", "state": {"waiting": {}}, "lastState": {"terminated": ended}}
        ],
    }
    world.settle()
    assert world.status["cache"]["removed"]["models"] == 1


# Claims that are only read.


def test_pods_on_any_node_read_a_claim_that_others_fill() -> None:
    world = pulling(cache=SHARED | {"accessModes": ["ReadOnlyMany"]})
    mounted = {"claimName": "shared", "readOnly": True}
    volumes = world.job("pull")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "models", "persistentVolumeClaim": mounted} in volumes
    roll_out(world)
    volumes = world.deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "models", "persistentVolumeClaim": mounted} in volumes
    assert world.deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    assert ChildRef("PersistentVolumeClaim", "smollm2-models") not in world.children


# On the nodes' own disks.

NODE_LOCAL = {"mode": "NodeLocal"}
SITE = SETTINGS.model_copy(update={"node_cache": "/var/lib/slm-models"})


def on_nodes(cache: dict[str, Any] = NODE_LOCAL, **changes: Any) -> World:
    world = World(spec(cache=cache, **{"resources": GIVEN, **changes}), settings=SITE)
    world.settle()
    return world


def containers(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = world.deployment["spec"]["template"]["spec"]
    return pod["initContainers"][0], pod["containers"][0]


def models_mount(container: dict[str, Any]) -> dict[str, Any]:
    (found,) = (each for each in container["volumeMounts"] if each["name"] == "models")
    return dict(found)


def test_pods_of_a_namespace_share_its_part_of_the_nodes_directory() -> None:
    world = on_nodes()
    volume = {"name": "models", "hostPath": {"path": "/var/lib/slm-models", "type": "Directory"}}
    assert volume in world.deployment["spec"]["template"]["spec"]["volumes"]
    fetch, serve = map(models_mount, containers(world))
    assert fetch == {"name": "models", "mountPath": places.MODEL_DIR, "subPath": "demo"}
    assert serve == {**fetch, "readOnly": True}
    assert world.deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    requested = containers(world)[0]["resources"]["requests"]["ephemeral-storage"]
    assert requested == "256Mi", "the model is no pod's"


def test_a_header_is_read_beside_the_nodes_directory() -> None:
    """What inspects writes nothing there."""
    world = on_nodes(resources=None)
    pod = world.job("inspect")["spec"]["template"]["spec"]
    assert all("hostPath" not in each for each in pod["volumes"])
    assert "subPath" not in models_mount(pod["containers"][0])


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        (NODE_LOCAL, Retention(keep=(), grace_seconds=DAY)),
        (NODE_LOCAL | {"unusedModels": "Retain"}, None),
        ({}, None),
    ],
)
def test_each_start_on_a_node_removes_what_nobody_uses_there(
    cache: dict[str, Any], told: Retention | None
) -> None:
    """The same words for every model: another one would be another template."""
    fetch, serve = containers(on_nodes(cache))
    texts = [each["value"] for each in fetch["env"] if each["name"] == places.RETENTION_ENV]
    assert [Retention.model_validate_json(each) for each in texts] == ([told] if told else [])
    assert all(each["name"] != places.RETENTION_ENV for each in serve["env"])


def test_a_site_without_a_directory_refuses_it_with_a_remedy() -> None:
    world = World(spec(cache=NODE_LOCAL, resources=GIVEN))
    world.settle()
    stalled = world.condition("Stalled")
    assert stalled is not None
    assert stalled["reason"] == "CacheNotOffered"
    assert "nodeCache.path" in stalled["message"]
    assert ChildRef("Deployment", "smollm2") not in world.children


def test_a_site_that_takes_its_directory_back_rolls_no_pod() -> None:
    world = on_nodes()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.deployment)
    world.settings = SETTINGS
    world.settle()
    assert world.deployment["spec"] == before["spec"]


def test_a_directory_changes_nothing_for_others() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    before = copy.deepcopy(world.deployment)
    world.settings = SITE
    world.settle()
    assert world.deployment["spec"] == before["spec"]
    assert on_nodes({}).deployment["spec"]["template"] == before["spec"]["template"]


@pytest.mark.parametrize("path", ["models", "/", "/var/../etc", "/var//lib", "/var/lib/", "/a b", ""])
def test_a_directory_is_an_absolute_path_that_goes_nowhere_else(path: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({**SETTINGS.model_dump(), "node_cache": path})


# Copies on nodes.


def copies_of(world: World) -> dict[str, Any] | None:
    return world.children.get(ChildRef("DaemonSet", "smollm2-copies"))


def test_copies_are_fetched_as_pods_fetch_and_held() -> None:
    world = on_nodes(NODE_LOCAL | {"prePull": True})
    made = copies_of(world)
    assert made is not None
    pod, serving = made["spec"]["template"]["spec"], world.deployment["spec"]["template"]["spec"]
    (fetch,), (hold,) = pod["initContainers"], pod["containers"]
    assert fetch["command"] == ["slm-runtime", "fetch"]
    assert hold["command"] == ["slm-runtime", "hold"]
    assert models_mount(fetch) == models_mount(serving["initContainers"][0])
    assert models_mount(hold) == models_mount(serving["containers"][0])
    assert runtime_config(pod) is not None
    assert runtime_config(pod).model == runtime_config(serving).model  # type: ignore[union-attr]
    for name in ("securityContext", "nodeSelector", "tolerations"):
        assert pod.get(name) == serving.get(name)
    for container in (fetch, hold):
        assert container["securityContext"] == serving["containers"][0]["securityContext"]
        assert "limits" in container["resources"]


def test_copies_are_no_pods_of_the_service_nor_of_the_deployment() -> None:
    world = on_nodes(NODE_LOCAL | {"prePull": True}, replicas=2)
    made = copies_of(world)
    assert made is not None
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()
    others = [
        world.children[ChildRef("Service", "smollm2")]["spec"]["selector"],
        world.deployment["spec"]["selector"]["matchLabels"],
        world.children[ChildRef("PodDisruptionBudget", "smollm2")]["spec"]["selector"]["matchLabels"],
    ]
    assert all(not (each.items() <= labels.items()) for each in others)


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({"cache": NODE_LOCAL | {"prePull": True}}, True),
        ({"cache": NODE_LOCAL}, False),
        ({"cache": NODE_LOCAL | {"prePull": True}, "suspend": True}, False),
        ({"cache": {"prePull": True}}, False),
    ],
)
def test_copies_are_there_where_they_are_asked_for(changes: dict[str, Any], there: bool) -> None:
    world = on_nodes(**changes)
    assert (copies_of(world) is not None) is there


def test_copies_that_come_and_go_roll_no_pod() -> None:
    world = on_nodes()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.deployment)
    for cache in (NODE_LOCAL | {"prePull": True}, NODE_LOCAL):
        world.edit(cache=cache)
        world.settle()
        assert (copies_of(world) is not None) is ("prePull" in cache)
        assert world.deployment["spec"] == before["spec"]
        assert [ref.kind for ref in world.children].count("ControllerRevision") == 1


@pytest.mark.parametrize(
    ("wanted", "ready", "told"),
    [(0, 0, 0), (1, 0, 0), (3, 2, 2), (39, 38, 38), (40, 39, 38), (500, 499, 475), (500, 500, 500)],
)
def test_that_each_node_has_its_copy_is_no_write_of_its_own(wanted: int, ready: int, told: int) -> None:
    world = on_nodes(NODE_LOCAL | {"prePull": True})
    made = copies_of(world)
    assert made is not None
    made["status"] = {"desiredNumberScheduled": wanted, "numberReady": ready}
    world.settle()
    assert world.status["cache"]["copies"] == {"wanted": wanted, "ready": told, "failed": 0}


def test_what_a_pull_removed_from_one_claim_is_not_said_of_another() -> None:
    world = pulling()
    finish_with_removal(world, Removed(models=2, bytes=3 << 30), "2026-01-01T00:02:00Z")
    world.settle()
    assert world.status["cache"]["removed"]["models"] == 2
    world.edit(cache=SHARED)
    world.settle()
    assert world.status["cache"] == {"claim": "shared"}


def test_a_copy_that_failed_is_counted_and_is_no_fault() -> None:
    world = on_nodes(NODE_LOCAL | {"prePull": True})
    world.run_pods()
    world.settle()
    made = copies_of(world)
    assert made is not None
    made["status"] = {"desiredNumberScheduled": 3, "numberReady": 1}
    ended = {"exitCode": 21, "message": ""}
    states: list[dict[str, Any]] = [
        {"name": "fetch", "ready": True, "state": {"terminated": {"exitCode": 0}}},
        {"name": "fetch", "ready": False, "state": {"running": {}}, "lastState": {"terminated": ended}},
        {"name": "fetch", "ready": False, "state": {"running": {}}},
    ]
    world.pods += [
        {
            "kind": "Pod",
            "metadata": {"name": f"copy-{number}", "labels": made["spec"]["template"]["metadata"]["labels"]},
            "spec": made["spec"]["template"]["spec"],
            "status": {"phase": "Pending", "initContainerStatuses": [state]},
        }
        for number, state in enumerate(states)
    ]
    world.settle()
    assert world.status["cache"]["copies"] == {"wanted": 3, "ready": 1, "failed": 1}
    ready = world.condition("Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("True", "Serving")
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    waits = {
        "phase": "Pending",
        "conditions": [scheduled, {"type": "PodReadyToStartContainers", "status": "False"}],
    }
    serving, copied = ({"kind": "Pod", **world.pods[each], "status": waits} for each in (0, 1))
    assert needs_clue(serving)
    assert not needs_clue(copied), "of thousands each would be a question to the API server"
