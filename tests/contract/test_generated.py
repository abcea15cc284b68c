"""What is generated from the models stands in the repository as it would be generated now."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_operator.crd.__main__ import crd_text
from slm_operator.crd.reference import reference_page
from slm_operator.crd.schema import crd

ROOT = Path(__file__).parents[2]
REMEDY = "run `make generate`"


def test_the_crd_is_up_to_date() -> None:
    assert (ROOT / "crds" / "slmdeployments.slm-operator.io.yaml").read_text() == crd_text(), REMEDY


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "reference" / "slmdeployment.md").read_text() == reference_page(), REMEDY


def test_the_crd_reads_as_what_was_generated() -> None:
    assert yaml.safe_load(crd_text()) == crd()


def _fields(schema: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, field in schema.get("properties", {}).items():
        found.append((f"{path}.{name}", field))
        found += _fields(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            found.append((f"{path}[]", schema[inner]))
            found += _fields(schema[inner], f"{path}[]")
    return found


ROOT_SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = _fields(ROOT_SCHEMA["properties"]["spec"], "spec")
STATUS = _fields(ROOT_SCHEMA["properties"]["status"], "status")


@pytest.mark.parametrize(
    ("path", "field"), [(path, field) for path, field in SPEC + STATUS if not path.endswith("[]")]
)
def test_every_field_is_described(path: str, field: dict[str, Any]) -> None:
    assert field.get("description", "").endswith((".", "`")), f"{path} needs a docstring"


@pytest.mark.parametrize(("path", "field"), SPEC)
def test_every_field_of_the_spec_is_bounded(path: str, field: dict[str, Any]) -> None:
    """Unbounded strings and lists make every rule near them too expensive for the API server."""
    if "enum" in field or field.get("type") == "boolean":
        return
    if field.get("x-kubernetes-int-or-string") or field.get("type") == "string":
        assert "maxLength" in field, path
    elif field.get("type") == "array":
        assert "maxItems" in field, path
    elif "additionalProperties" in field:
        assert "maxProperties" in field, path
    elif field.get("type") == "integer":
        assert "minimum" in field, path


@pytest.mark.parametrize("path", [path for path, field in SPEC if "x-kubernetes-validations" in field])
def test_every_rule_says_what_to_write(path: str) -> None:
    for rule in dict(SPEC)[path]["x-kubernetes-validations"]:
        assert len(rule["message"]) > 20, path
        assert len(rule["message"]) < 200, path
