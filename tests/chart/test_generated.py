"""The made parts of the chart are what the generator would make, and values, schema and code agree."""

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from slm_contract.config import EngineName, ModelFormat, Quantization
from slm_operator.settings import (
    CatalogEntry,
    CatalogVariant,
    FetchSettings,
    HardwareClass,
    MirrorSettings,
    Settings,
    SettingsModel,
    Toleration,
)
from tests.chart.generate import CHART, UndescribedValue, generated, values

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["definitions"][name]
    return found


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_made_files_are_up_to_date(path: Any) -> None:
    assert path.read_text() == generated()[path], "run: python -m tests.chart.generate"


def test_the_chart_holds_no_crd_that_is_gone() -> None:
    assert set((CHART / "files" / "crds").glob("*.yaml")) <= set(generated())


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(UndescribedValue, match=r"line 3: say in a comment what b\.d is for"):
        values("# B.\nb:\n  d: 1\n  # C.\n  c: 2\n")


def test_the_schema_is_a_schema_and_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


def unlisted(schema: dict[str, Any], given: dict[str, Any], path: str = "") -> list[str]:
    """Properties that the schema knows and the values file doesn't show."""
    if "$ref" in schema:
        schema = definition(schema["$ref"].rpartition("/")[2])
    missing = []
    for name, inner in schema.get("properties", {}).items():
        if name not in given:
            missing.append(path + name)
        elif isinstance(given[name], dict):
            missing += unlisted(inner, given[name], f"{path}{name}.")
    return missing


def test_every_value_that_the_schema_knows_is_shown() -> None:
    kubernetes = {
        "resources.claims",
        "affinity.nodeAffinity",
        "affinity.podAffinity",
        "affinity.podAntiAffinity",
    }
    assert set(unlisted(SCHEMA, VALUES)) - kubernetes == {"global"}


def wire_names(model: type[SettingsModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_the_schema_of_a_class_is_that_of_the_code() -> None:
    assert set(definition("hardwareClass")["properties"]) == wire_names(HardwareClass) - {"name"} | {
        "order",
        "engine",
        "variant",
    }
    assert set(definition("toleration")["properties"]) == wire_names(Toleration)
    assert definition("engine")["enum"] == [name.value for name in EngineName]
    assert definition("format")["enum"] == [each.value for each in ModelFormat]


def test_the_schema_of_fetches_and_catalog_is_that_of_the_code() -> None:
    fetch = SCHEMA["properties"]["fetch"]["properties"]
    assert set(fetch) == wire_names(FetchSettings)
    assert set(fetch["mirrors"]["items"]["properties"]) == wire_names(MirrorSettings)
    assert set(definition("catalogEntry")["properties"]) == wire_names(CatalogEntry)
    assert set(definition("catalogVariant")["properties"]) == wire_names(CatalogVariant)
    assert definition("quantization")["enum"] == [each.value for each in Quantization]


@pytest.mark.parametrize(
    ("name", "heading"), [("hardwareClass", "Hardware classes"), ("catalogEntry", "Catalog")]
)
def test_the_readme_tells_every_field_of_a_class_and_of_the_catalog(name: str, heading: str) -> None:
    section = (CHART / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    told = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)))
    assert set(told) >= set(definition(name)["properties"])


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        ("clusterDomain", "cluster_domain"),
        ("workers", "workers"),
        ("resyncSeconds", "resync_seconds"),
        ("pollSeconds", "poll_seconds"),
    ],
)
def test_defaults_of_chart_and_code_are_the_same(value: str, setting: str) -> None:
    assert VALUES[value] == Settings.model_fields[setting].default


def test_the_default_sources_are_those_of_the_code() -> None:
    assert tuple(VALUES["fetch"]["allowedSources"]) == Settings.model_fields["fetch"].default.allowed_sources
