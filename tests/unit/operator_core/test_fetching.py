"""What reaches the containers that fetch: mirrors, hosts, the claim of a `pvc://` source; and that nothing else changes."""

from collections.abc import Iterator
from typing import Any

import pytest

from slm_contract import places
from slm_contract.source import FetchConfig, Mirror
from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.resource import parse_resource
from slm_operator.revision.digests import placement_digest, site_digest, spec_digest
from slm_operator.settings import CatalogEntry, EnvVar, FetchSettings, MirrorSettings, Settings
from tests.unit.operator_core.world import GIVEN, SETTINGS, World, reasons, spec

HUB = MirrorSettings(source="hf://", mirror="https://hub.corp/")
DOCKER = MirrorSettings(source="oci://docker.io/", mirror="oci://registry.corp/hub/")
OWN = {"source": "hf://", "mirror": "https://own.corp/hf/"}
CLAIM = {"name": "source", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
MOUNT = {"name": "source", "mountPath": places.SOURCE_DIR, "readOnly": True}


def site(**fetch: Any) -> Settings:
    return SETTINGS.model_copy(update={"fetch": FetchSettings(**fetch)})


def settled(wanted: dict[str, Any], settings: Settings = SETTINGS) -> World:
    world = World(wanted, settings=settings)
    world.settle()
    return world


def pods(world: World) -> Iterator[dict[str, Any]]:
    for ref, child in world.children.items():
        if ref.kind in {"Job", "Deployment"}:
            yield child["spec"]["template"]["spec"]


def containers(world: World) -> Iterator[dict[str, Any]]:
    for pod in pods(world):
        yield from (*pod.get("initContainers", ()), *pod["containers"])


def fetch_configs(world: World) -> dict[str, FetchConfig]:
    """By container, of those that have one."""
    return {
        container["name"]: FetchConfig.model_validate_json(each["value"])
        for container in containers(world)
        for each in container["env"]
        if each["name"] == places.FETCH_ENV
    }


def test_what_was_decided_before_there_were_mirrors_stands() -> None:
    """Digests and names as version 0.1.0 made them: another would roll pods, or read every header anew."""
    world = settled(spec(resources=GIVEN))
    resource = parse_resource(world.resource)
    model = resource.spec.model
    assert site_digest(SETTINGS, model) == "54723c0ca3b3698d"
    older = site(env=(EnvVar(name="PIP_INDEX_URL", value="https://index.corp/simple"),), ca_bundle="x")
    assert site_digest(older, model) == "c99b1ec2e6494e43"
    assert placement_digest(resource.spec) == "1788a260e32790fe"
    assert spec_digest(resource) == "09b62c832939b39c"
    assert [ref.name for ref in world.children if ref.kind == "ControllerRevision"] == ["smollm2-dd50897c15"]
    assert [ref.name for ref in settled(spec()).children if ref.kind == "Job"] == ["smollm2-inspect-bef215"]


@pytest.mark.parametrize(
    "fetch", [{"mirrors": (HUB,)}, {"hosts": ("models.corp",)}, {"bytes_per_second": 1000}], ids=str
)
def test_each_setting_is_of_the_site_s_digest(fetch: dict[str, Any]) -> None:
    model = parse_resource(settled(spec(resources=GIVEN)).resource).spec.model
    assert site_digest(site(**fetch), model) != site_digest(SETTINGS, model)


def test_a_catalog_is_of_the_site_s_digest_where_it_is_used() -> None:
    entry = CatalogEntry(source="hf://org/repo", license="MIT")
    listed = SETTINGS.model_copy(update={"catalog": {"m": entry}})
    other = SETTINGS.model_copy(
        update={"catalog": {"m": entry.model_copy(update={"source": "hf://org/new"})}}
    )
    plain = parse_resource(settled(spec(resources=GIVEN)).resource).spec.model
    by_name = plain.model_copy(update={"source": "catalog://m"})
    assert site_digest(listed, plain) == site_digest(SETTINGS, plain)
    assert site_digest(listed, by_name) != site_digest(other, by_name)


@pytest.mark.parametrize(
    ("wanted", "fetching"),
    [
        (spec(), "inspect"),
        (spec(resources=GIVEN), "fetch"),
        (spec(cache={"mode": "PVC", "size": "5Gi"}, resources=GIVEN), "fetch"),
    ],
    ids=["inspect Job", "pod", "pull Job"],
)
def test_what_fetches_knows_the_site_and_what_serves_doesn_t(wanted: dict[str, Any], fetching: str) -> None:
    world = settled(wanted, site(mirrors=(HUB, DOCKER), hosts=("hub.corp",), bytes_per_second=1000))
    assert fetch_configs(world) == {
        fetching: FetchConfig(
            mirrors=tuple(Mirror(source=each.source, mirror=each.mirror) for each in (HUB, DOCKER)),
            hosts=("hub.corp",),
            bytes_per_second=1000,
        )
    }


def test_without_settings_nothing_is_said() -> None:
    assert fetch_configs(settled(spec(resources=GIVEN))) == {}


def test_a_deployment_s_own_mirror_goes_before_the_site_s() -> None:
    model = {**spec()["model"], "mirrors": [OWN]}
    world = settled(spec(model=model, resources=GIVEN), site(mirrors=(HUB,)))
    mirrors = fetch_configs(world)["fetch"].mirrors
    assert [each.mirror for each in mirrors] == ["https://own.corp/hf/", "https://hub.corp/"]


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        (OWN, "SourceNotAllowed"),
        ({"source": "hf://", "mirror": "https://hub.corp/team/"}, "Inspecting"),
        ({"source": "hf://", "mirror": "https://hub.corp/"}, "SourceNotAllowed"),
        ({"source": "hf://", "mirror": "pvc://claim/"}, "SourceNotAllowed"),
        ({"source": "https://models.corp/", "mirror": "https://hub.corp/team/"}, "Inspecting"),
    ],
    ids=lambda each: each["mirror"] if isinstance(each, dict) else each,
)
def test_a_deployment_s_mirror_is_no_way_around_the_rules(mirror: dict[str, str], reason: str) -> None:
    rules = ("hf://", "https://hub.corp/team/", "https://models.corp/", "pvc://")
    model = {"source": "hf://org/repo/m.gguf", "mirrors": [mirror]}
    world = settled(spec(model=model, resources=GIVEN), site(allowed_sources=rules))
    assert reasons(world.status) == [reason]


def test_a_path_can_t_lead_out_of_a_mirror() -> None:
    model = {
        "source": "https://models.corp/../evil/m.gguf",
        "mirrors": [{"source": "https://models.corp/", "mirror": "https://hub.corp/team/"}],
    }
    rules = ("https://models.corp/", "https://hub.corp/team/")
    world = settled(spec(model=model, resources=GIVEN), site(allowed_sources=rules))
    assert reasons(world.status) == ["SourceNotAllowed"]


@pytest.mark.parametrize("resources", [{}, {"resources": GIVEN}], ids=["inspected", "given"])
def test_a_claim_is_mounted_read_only_wherever_the_model_is_read(resources: dict[str, Any]) -> None:
    world = settled(spec(model={"source": "pvc://models/m.gguf"}, **resources))
    assert all(CLAIM in pod["volumes"] for pod in pods(world))
    assert all(MOUNT in container["volumeMounts"] for container in containers(world))
    assert list(containers(world))


def test_a_model_on_a_claim_takes_no_room_of_the_node() -> None:
    def disk(source: str) -> tuple[Any, Any]:
        world = World(spec(model={"source": source}))
        world.settle()
        world.finish_job("inspect")
        world.settle()
        pod = world.deployment["spec"]["template"]["spec"]
        (models,) = (each for each in pod["volumes"] if each["name"] == "models")
        asked = pod["containers"][0]["resources"]["requests"]["ephemeral-storage"]
        return parse_quantity(models["emptyDir"]["sizeLimit"]), parse_quantity(asked)

    linked, fetched = disk("pvc://models/m.gguf"), disk("https://models.corp/m.gguf")
    assert linked[0] < 98_000_000 < fetched[0]
    assert linked[1] + 98_000_000 < fetched[1]


def test_only_the_class_whose_artifact_lies_on_a_claim_mounts_it() -> None:
    variants = [{"hardware": "gpu", "source": "pvc://models/m.gguf"}]
    wanted = spec(
        model={**spec()["model"], "variants": variants}, resources=GIVEN, hardware={"preference": ["cpu"]}
    )
    assert all(CLAIM not in pod["volumes"] for pod in pods(settled(wanted)))


MISSING = 'persistentvolumeclaim "models" not found'


@pytest.mark.parametrize("words", [MISSING, 'persistentvolumeclaim "models" is being deleted'])
def test_a_claim_that_is_missing_is_named_and_no_other_class_is_tried(words: str) -> None:
    world = World(
        spec(
            model={"source": "pvc://models/m.gguf"},
            resources=GIVEN,
            hardware={"preference": ["gpu", "cpu"], "fallback": {"after": "1m"}},
        ),
        nodes=None,
    )
    world.settle()
    world.finish_job("inspect")
    world.settle()
    world.run_pods(ready=False)
    world.leave_unscheduled(f"0/1 nodes are available: {words}. preemption: not eligible")
    for _ in range(3):
        world.wait(minutes=10)
        world.settle()
    assert reasons(world.status, ("Ready", "ModelReady")) == ["ClaimNotFound", "ClaimNotFound"]
    assert "claim models" in world.status["lastFailure"]["message"]
    assert world.status["placement"]["selected"] == "gpu-nvidia"


def test_a_job_that_waits_for_a_claim_says_so() -> None:
    world = World(spec(model={"source": "pvc://models/m.gguf"}))
    world.settle()
    world.finish_job("inspect")
    world.leave_unscheduled(MISSING)
    world.job("inspect")["status"] = {}
    world.settle()
    assert reasons(world.status) == ["ClaimNotFound"]
