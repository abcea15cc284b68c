"""The catalog: which artifact a name stands for, what is said of a name that isn't there, and what a change of it does."""

from typing import Any

import pytest

from slm_operator.crd.resource import parse_resource
from slm_operator.placement.choose import artifact_for
from slm_operator.settings import CatalogEntry, CatalogVariant, FetchSettings, Settings
from tests.unit.operator_core.world import CPU, GIVEN, GPU, NPU, SETTINGS, World, config_of, reasons, spec

SHA, OTHER = "a" * 64, "b" * 64
CATALOG = {
    "phi-4-mini": CatalogEntry(
        source="hf://org/Phi-4-mini-GGUF/Phi-4-mini-Q4_K_M.gguf",
        sha256=SHA,
        license="MIT",
        variants=(
            CatalogVariant(hardware="gpu", source="hf://org/Phi-4-mini-GGUF/Phi-4-mini-Q8_0.gguf"),
            CatalogVariant(hardware="npu-intel", source="oci://registry.corp/phi:npu", sha256=OTHER),
        ),
    ),
    "gemma-2-2b": CatalogEntry(source="pvc://models/gemma.gguf", license="gemma", gated=True),
}
SITE = SETTINGS.model_copy(update={"catalog": CATALOG})


def site(**fetch: Any) -> Settings:
    return SITE.model_copy(update={"fetch": FetchSettings(**fetch)})


def named(source: str = "catalog://phi-4-mini", **model: Any) -> dict[str, Any]:
    return spec(model={"source": source, **model}, resources=GIVEN, hardware={"preference": ["cpu"]})


@pytest.mark.parametrize(
    ("hardware_class", "source", "sha256"),
    [
        (CPU, "hf://org/Phi-4-mini-GGUF/Phi-4-mini-Q4_K_M.gguf", SHA),
        (GPU, "hf://org/Phi-4-mini-GGUF/Phi-4-mini-Q8_0.gguf", None),
        (NPU, "oci://registry.corp/phi:npu", OTHER),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_a_name_stands_for_the_artifact_of_the_class(
    hardware_class: Any, source: str, sha256: str | None
) -> None:
    artifact = artifact_for(parse_resource(World(named()).resource), hardware_class, CATALOG)
    assert (artifact.source, artifact.sha256, artifact.name) == (source, sha256, "smollm2")


def test_the_spec_s_own_checksum_and_variants_go_before_the_catalog_s() -> None:
    variants = [
        {"hardware": "gpu", "source": "https://models.corp/phi.gguf"},
        {"hardware": "npu", "source": "catalog://gemma-2-2b"},
    ]
    resource = parse_resource(World(named(sha256=OTHER, variants=variants)).resource)
    found = [artifact_for(resource, each, CATALOG) for each in (CPU, GPU, NPU)]
    assert [(each.source, each.sha256) for each in found] == [
        ("hf://org/Phi-4-mini-GGUF/Phi-4-mini-Q4_K_M.gguf", OTHER),
        ("https://models.corp/phi.gguf", None),
        ("pvc://models/gemma.gguf", None),
    ]


def test_pods_get_what_the_name_stands_for_and_the_status_shows_it() -> None:
    world = World(named(), settings=SITE)
    world.settle()
    assert CATALOG["phi-4-mini"].source in config_of(world.deployment)
    assert "catalog://" not in config_of(world.deployment)
    model = world.status["model"]
    assert model["source"] == CATALOG["phi-4-mini"].source
    assert (model["resolved"], model["license"], model["gated"]) == ("Phi-4-mini-Q4_K_M.gguf", "MIT", False)


def test_a_model_that_isn_t_of_the_catalog_has_no_license_from_it() -> None:
    world = World(spec(resources=GIVEN), settings=SITE)
    world.settle()
    assert not {"license", "gated"} & world.status["model"].keys()


@pytest.mark.parametrize(
    ("source", "offered"),
    [
        ("catalog://phi4-mini", "catalog://phi-4-mini"),
        ("catalog://gemma-2b", "catalog://gemma-2-2b"),
        ("catalog://zzz", "catalog://gemma-2-2b or catalog://phi-4-mini"),
    ],
)
def test_a_name_that_isn_t_there_is_told_with_the_nearest(source: str, offered: str) -> None:
    world = World(named(source), settings=SITE)
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled", "ModelReady")) == ["NotInCatalog"] * 3
    assert world.status["lastFailure"]["remedy"].startswith(f"write {offered}, or have")
    assert world.kinds() == ["Service"]


def test_a_catalog_without_models_offers_none() -> None:
    world = World(named(), settings=SETTINGS)
    world.settle()
    assert world.status["lastFailure"]["remedy"].startswith("have it added to the catalog")


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (("catalog://",), True),
        (("catalog://phi-4-mini",), True),
        (("hf://org/", "oci://registry.corp/"), True),
        # The chart's own catalog doesn't widen what a site has narrowed.
        (("https://models.corp/",), False),
        (("catalog://gemma-2-2b",), False),
        (("hf://org/",), False),
    ],
)
def test_the_rules_admit_a_name_or_all_that_it_stands_for(rules: tuple[str, ...], allowed: bool) -> None:
    world = World(named(), settings=site(allowed_sources=rules))
    world.settle()
    assert (reasons(world.status) == ["SourceNotAllowed"]) is not allowed


def test_a_rule_for_names_admits_no_source() -> None:
    world = World(named(CATALOG["phi-4-mini"].source), settings=site(allowed_sources=("catalog://",)))
    world.settle()
    assert reasons(world.status) == ["SourceNotAllowed"]


def changed(entry: str = "hf://org/other/m.gguf") -> Settings:
    return SITE.model_copy(
        update={
            "catalog": {**CATALOG, "phi-4-mini": CatalogEntry(source=entry, sha256="c" * 64, license="MIT")}
        }
    )


def test_a_changed_entry_leaves_what_serves_alone() -> None:
    world = World(named(), settings=SITE)
    world.settle()
    world.run_pods()
    world.settle()
    before = world.deployment["spec"]["template"]
    world.settings = changed()
    world.settle()
    assert world.deployment["spec"]["template"] == before
    assert reasons(world.status) == ["Serving"]


def test_what_can_t_be_fetched_is_tried_with_a_changed_entry() -> None:
    world = World(named(), settings=SITE)
    world.settle()
    world.run_pods(ready=False)
    gone = '{"version":1,"command":"fetch","failure":{"reason":"SourceNotFound","message":"gone","remedy":"look"}}'
    world.fail("fetch", gone, exit_code=20)
    world.settle()
    assert reasons(world.status) == ["SourceNotFound"]
    world.settings = changed()
    world.settle()
    assert "hf://org/other/m.gguf" in config_of(world.deployment)
