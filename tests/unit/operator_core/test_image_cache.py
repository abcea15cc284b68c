"""Models that the node mounts as images: `spec.cache.mode: Image`."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from slm_contract import places
from slm_contract.config import ModelConfig
from slm_contract.source import Mirror, SourcePin
from slm_operator.crd.quantities import parse_quantity
from slm_operator.model.image import image_reference
from slm_operator.settings import CatalogEntry, FetchSettings, MirrorSettings, Settings
from tests.unit.operator_core.world import GIVEN, SETTINGS, SMOLLM2, World, config_of, reasons, spec

DIGEST = "sha256:" + 64 * "a"
PIN = SourcePin(revision=DIGEST, digest=64 * "1")
IMAGE = {"mode": "Image"}
MODEL = {"source": "oci://registry.corp/team/tiny:1#models/tiny.gguf"}
REFERENCE = f"registry.corp/team/tiny@{DIGEST}"
MOUNT = {"name": "source", "mountPath": places.SOURCE_DIR, "readOnly": True}


def inspecting(*, settings: Settings = SETTINGS, image_volumes: bool = True, **changes: Any) -> World:
    wanted = spec(**{"model": MODEL, "cache": IMAGE, "resources": GIVEN, **changes})
    world = World(wanted, settings=settings, image_volumes=image_volumes)
    world.settle()
    return world


def mounted(**changes: Any) -> World:
    """A world whose image was looked at."""
    world = inspecting(**changes)
    world.finish_job("inspect", SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    return world


def pod_of(world: World) -> dict[str, Any]:
    pod: dict[str, Any] = world.deployment["spec"]["template"]["spec"]
    return pod


def image_of(world: World) -> Mapping[str, Any]:
    (image,) = (each["image"] for each in pod_of(world)["volumes"] if "image" in each)
    return dict(image)


def test_pods_have_the_image_that_was_pinned_where_they_read_it() -> None:
    world = mounted()
    assert image_of(world) == {"reference": REFERENCE, "pullPolicy": "IfNotPresent"}
    pod = pod_of(world)
    assert all(MOUNT in each["volumeMounts"] for each in (*pod["initContainers"], *pod["containers"]))
    told = json.loads(config_of(world.deployment))["model"]
    assert told["mounted"] is True
    assert told["pin"]["revision"] == DIGEST


def test_what_the_image_is_is_asked_of_its_registry_first() -> None:
    """Also where the file's checksum is known: the image is mounted by its own."""
    world = inspecting(model={**MODEL, "sha256": 64 * "c"})
    assert "Deployment" not in world.kinds()
    pod = world.job("inspect")["spec"]["template"]["spec"]
    assert all("image" not in each for each in pod["volumes"])
    assert all(MOUNT not in each["volumeMounts"] for each in pod["containers"])
    world.finish_job("inspect", SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    assert image_of(world)["reference"] == REFERENCE


def test_a_model_in_an_image_takes_no_room_of_the_pod() -> None:
    pod = pod_of(mounted())
    (models,) = (each for each in pod["volumes"] if each["name"] == "models")
    assert parse_quantity(models["emptyDir"]["sizeLimit"]) < 98_000_000
    for container in (*pod["initContainers"], *pod["containers"]):
        assert parse_quantity(container["resources"]["requests"]["ephemeral-storage"]) < 512 << 20


def test_kubelet_pulls_with_the_model_s_credentials() -> None:
    credentials = {"secretRef": {"name": "registry"}}
    world = mounted(model={**MODEL, "credentials": credentials})
    assert {"name": "registry"} in pod_of(world)["imagePullSecrets"]
    fetching = World(spec(model={**MODEL, "credentials": credentials}, resources=GIVEN))
    fetching.settle()
    fetching.finish_job("inspect", SMOLLM2.model_copy(update={"pin": PIN}))
    fetching.settle()
    assert "imagePullSecrets" not in pod_of(fetching), "a fetch reads them by itself"


@pytest.mark.parametrize(
    ("source", "mirrors", "reference"),
    [
        ("oci://registry.corp:5000/a/b/c:1", [], f"registry.corp:5000/a/b/c@{DIGEST}"),
        (f"oci://registry.corp/a@{'sha256:' + 64 * 'b'}", [], f"registry.corp/a@{DIGEST}"),
        ("oci://registry.corp/a:1#x/*.gguf", [], f"registry.corp/a@{DIGEST}"),
        ("oci://docker.io/model:1", [], f"docker.io/library/model@{DIGEST}"),
        ("oci://index.docker.io/ai/model", [], f"docker.io/ai/model@{DIGEST}"),
        (
            "oci://docker.io/model:1",
            [("oci://docker.io/", "oci://registry.corp/hub/")],
            f"registry.corp/hub/library/model@{DIGEST}",
        ),
        (
            "oci://docker.io/ai/model:1",
            [("oci://docker.io/", "oci://a/"), ("oci://docker.io/ai/", "oci://b/"), ("oci://", "oci://c/")],
            f"b/model@{DIGEST}",
        ),
        (
            "oci://docker.io/model:1",
            [("oci://docker.io/", "https://m/")],
            f"docker.io/library/model@{DIGEST}",
        ),
        ("oci://docker.io.corp/a:1", [("oci://docker.io", "oci://a")], f"docker.io.corp/a@{DIGEST}"),
    ],
)
def test_an_image_is_named_as_kubelet_reads_it(
    source: str, mirrors: list[tuple[str, str]], reference: str
) -> None:
    artifact = ModelConfig(name="m", source=source, mounted=True, pin=PIN)
    listed = [Mirror(source=each, mirror=instead) for each, instead in mirrors]
    assert image_reference(artifact, listed) == reference


def test_a_site_s_mirror_stands_in_for_the_registry() -> None:
    mirror = MirrorSettings(source="oci://registry.corp/", mirror="oci://near.corp/copies/")
    settings = SETTINGS.model_copy(update={"fetch": FetchSettings(mirrors=(mirror,))})
    assert image_of(mounted(settings=settings))["reference"] == f"near.corp/copies/team/tiny@{DIGEST}"


@pytest.mark.parametrize("entry", ["hf://org/repo/m.gguf", "oci://registry.corp/team/tiny:1"])
def test_a_catalog_s_model_has_to_be_in_a_registry(entry: str) -> None:
    settings = SETTINGS.model_copy(update={"catalog": {"m": CatalogEntry(source=entry, license="MIT")}})
    world = inspecting(model={"source": "catalog://m"}, settings=settings)
    if entry.startswith("oci://"):
        assert reasons(world.status) == ["Inspecting"]
        return
    assert reasons(world.status, ("Ready", "Stalled")) == ["CacheNotOffered", "CacheNotOffered"]
    assert "hf://org/repo/m.gguf" in world.condition("Ready")["message"]  # type: ignore[index]
    assert world.kinds() == ["Service"]


def test_another_mode_fetches_what_was_mounted_and_back_again() -> None:
    """What the source stood for is known: nothing is asked anew."""
    world = mounted()
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    world.edit(cache={"mode": "Ephemeral"})
    world.settle()
    assert "Job" not in world.kinds()
    assert all("image" not in each for each in pod_of(world)["volumes"])
    assert "mounted" not in json.loads(config_of(world.deployment))["model"]
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    world.edit(cache=IMAGE)
    world.settle()
    assert image_of(world)["reference"] == REFERENCE


def test_an_api_server_that_drops_image_volumes_is_told_in_a_sentence() -> None:
    world = mounted(image_volumes=False)
    world.run_pods(ready=False)
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled", "ModelReady")) == 3 * ["ImageVolumesOff"]
    message = world.condition("Ready")["message"]  # type: ignore[index]
    assert REFERENCE in message
    assert "1.35" in message
    assert "spec.cache.mode" in message
    world.edit(cache={"mode": "Ephemeral"})
    world.settle()
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    assert reasons(world.status) == ["Serving"]


def test_what_served_before_serves_again_where_image_volumes_are_dropped() -> None:
    world = inspecting(cache={"mode": "Ephemeral"}, image_volumes=False)
    world.finish_job("inspect", SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    before = world.deployment["spec"]["template"]
    world.edit(cache=IMAGE)
    world.settle()
    assert world.deployment["spec"]["template"] == before
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": PIN}))
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled")) == ["RolledBack", "ImageVolumesOff"]


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_a_pull_that_fails_names_the_model_s_image_and_not_the_runtime_s(reason: str) -> None:
    world = mounted()
    world.run_pods(ready=False)
    words = f'failed to pull and unpack image "{REFERENCE}": connection refused'
    for pod in world.pods:
        pod["status"].pop("conditions")
        waiting = {"reason": reason, "message": words}
        image = SETTINGS.runtime_image
        pod["status"]["initContainerStatuses"] = [
            {"name": "fetch", "image": image, "state": {"waiting": waiting}}
        ]
    world.settle()
    told = world.condition("Ready")
    assert told is not None
    assert told["reason"] == "ImagePullFailed"
    assert told["message"].startswith(f"image {REFERENCE} can't be pulled")
    assert "dockerconfigjson" in told["message"]


def test_a_runtime_that_cannot_mount_images_is_told() -> None:
    world = mounted()
    world.run_pods(ready=False)
    for pod in world.pods:
        pod["status"].pop("conditions")
        waiting = {
            "reason": "CreateContainerError",
            "message": 'failed to mkdir "": no such file or directory',
        }
        pod["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"waiting": waiting}}]
    world.settle()
    told = world.condition("Ready")
    assert told is not None
    assert told["reason"] == "ContainerConfigFailed"
    assert "containerd 2.1" in told["message"]
