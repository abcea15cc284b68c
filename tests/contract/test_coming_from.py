"""docs/coming-from.md: what users of other servers are told to write is what the CRD takes, field by field."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from slm_operator.crd.resource import parse_resource
from slm_operator.crd.schema import crd
from tests.contract.test_examples import _closed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "coming-from.md").read_text()
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]
WRITTEN = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
OURS = [each for each in WRITTEN if each.get("kind") == "SLMDeployment"]
NAMED = sorted(
    {name for name in re.findall(r"`([a-z][A-Za-z]*(?:\.[a-zA-Z]+)+)", PAGE) if name.split(".")[0] in SPEC}
)


def test_every_server_has_its_counterpart() -> None:
    assert [line for line in PAGE.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in ("Ollama", "llama-server", "LocalAI", "KubeAI", "KServe")
    ]
    assert len(OURS) == 5


@pytest.mark.parametrize("document", OURS, ids=range(len(OURS)))
def test_what_is_to_be_written_is_valid(document: dict[str, Any]) -> None:
    jsonschema.validate(document, _closed(SCHEMA))
    parse_resource(document)


@pytest.mark.parametrize("path", NAMED)
def test_a_field_that_is_named_is_one(path: str) -> None:
    field: Any = {"properties": SPEC}
    for name in path.split("."):
        assert name in field["properties"], path
        field = field["properties"][name]
