"""What the API server does with our custom resource: fills in defaults and drops what the schema doesn't know."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

CRD = Path(__file__).parents[2] / "crds" / "slmdeployments.slm-operator.io.yaml"


@cache
def schema() -> dict[str, Any]:
    document = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def admitted(document: dict[str, Any]) -> dict[str, Any]:
    """The custom resource as it is stored."""
    properties = schema()["properties"]
    stored = dict(document)
    for part in ("spec", "status"):
        if part not in stored and "default" in properties[part]:
            stored[part] = properties[part]["default"]
        if part in stored:
            stored[part] = _conform(stored[part], properties[part])
    return stored


def _conform(value: Any, rules: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_conform(each, rules.get("items", {})) for each in value]
    if not isinstance(value, dict) or "properties" not in rules:
        return value
    properties = rules["properties"]
    filled = {name: rule["default"] for name, rule in properties.items() if "default" in rule}
    kept = {name: each for name, each in value.items() if name in properties and each is not None}
    return {name: _conform(each, properties[name]) for name, each in (filled | kept).items()}
