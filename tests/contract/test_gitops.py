"""What GitOps tools are given: a health check in their own Lua, a schema that a diff rests with, examples that are valid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import lupa.lua51
import pytest
import yaml

from slm_operator.crd.schema import crd
from tests.contract.phases import Phase, phases
from tests.contract.test_examples import _closed

ROOT = Path(__file__).parents[2]
HEALTH = ROOT / "docs" / "gitops" / "health.lua"
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
DOCUMENTS = sorted(
    path for path in (ROOT / "examples" / "gitops").rglob("*.yaml") if path.parent.name != "ci"
)
PIPELINES = sorted((ROOT / "examples" / "gitops" / "ci").glob("*.yaml"))


@pytest.mark.parametrize("phase", phases(), ids=lambda phase: phase.name)
def test_argo_cd_s_health_is_what_the_status_says(phase: Phase) -> None:
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.globals()["obj"] = lua.table_from(phase.object, recursive=True)
    health = lua.execute(HEALTH.read_text())
    assert health["status"] == phase.argocd, health["message"]
    assert health["message"]


def test_the_health_check_in_the_example_is_the_one_that_is_tested() -> None:
    config = yaml.safe_load((ROOT / "examples" / "gitops" / "argocd" / "argocd-cm.yaml").read_text())
    key = "resource.customizations.health.slm-operator.io_SLMDeployment"
    assert config["data"][key] == HEALTH.read_text()


def test_nothing_in_a_list_has_a_default() -> None:
    """Argo CD compares lists as they were written, and would find a default there that nobody wrote, for ever."""
    assert list(_defaults_in_lists(SCHEMA["properties"]["spec"], "spec")) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_an_example_is_what_a_cluster_takes(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert {"apiVersion", "kind"} <= document.keys()
        if document["kind"] == "SLMDeployment":
            jsonschema.validate(document, _closed(SCHEMA))
        if document["kind"] == "Kustomization" and "resources" in document:
            assert all((path.parent / each).exists() for each in document["resources"])


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_a_pipeline_plans_applies_and_waits(path: Path) -> None:
    said = [line for line in _strings(yaml.safe_load(path.read_text())) if "kubectl" in line]
    steps = ("kubectl slm plan", "kubectl apply --server-side -k models", "kubectl wait slm --all")
    assert [step for step in steps if not any(step in line for line in said)] == []


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(each)


def _defaults_in_lists(schema: Any, path: str, *, within: bool = False) -> Iterator[str]:
    if within and "default" in schema:
        yield path
    for name, each in schema.get("properties", {}).items():
        yield from _defaults_in_lists(each, f"{path}.{name}", within=within)
    if "items" in schema:
        yield from _defaults_in_lists(schema["items"], f"{path}[]", within=True)
