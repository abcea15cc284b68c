"""The reference page, generated from the same schema as the CRD: what `kubectl explain` says, on one page."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from slm_operator.crd.base import RULES
from slm_operator.crd.names import API_VERSION, KIND, SHORT_NAMES
from slm_operator.crd.schema import NAME_RULE, structural
from slm_operator.crd.spec import Spec
from slm_operator.crd.status import Status

_AS_IN_A_POD: Final = frozenset({"podTemplate.affinity"})
"""Fields that are Kubernetes' own in every detail: ninety lines that say nothing of ours."""


def reference_page() -> str:
    """Markdown: a table of the spec's fields, one of the status's, and the rules in words."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f"# {KIND}"
    yield ""
    yield f"`apiVersion: {API_VERSION}`, short names {', '.join(f'`{name}`' for name in SHORT_NAMES)}. Generated from the"
    yield "models by `make generate`; `kubectl explain slmdeployment.spec` prints the same."
    spec = structural(Spec)
    yield ""
    yield "## spec"
    yield ""
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for path, field, required in _fields(spec, ""):
        shown = "required" if required else _default(field)
        yield f"| `{path}` | {_type(field)} | {shown} | {_cell(field.get('description', ''))} |"
    yield ""
    yield "## Rules"
    yield ""
    yield "What breaks one of these is refused by the API server, with this sentence."
    yield ""
    yield f"- `metadata.name`: {NAME_RULE['message']}"
    yield from dict.fromkeys(_rules(spec, "spec"))
    status = structural(Status)
    yield ""
    yield "## status"
    yield ""
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for path, field, _ in _fields(status, ""):
        yield f"| `{path}` | {_type(field)} | {_cell(field.get('description', ''))} |"


def _fields(schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, field, name in schema.get("required", ())
        if path in _AS_IN_A_POD:
            continue
        yield from _fields(field, f"{path}.")
        yield from _fields(field.get("items", {}), f"{path}[].")


def _rules(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for each in schema.get(RULES, ()):
        yield f"- `{path}`: {each['message']}"
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object" and "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    bounds = [str(field[key]) for key in ("minimum", "maximum") if key in field]
    return str(field.get("type", "object")) + (f" {' to '.join(bounds)}" if len(bounds) == 2 else "")


def _default(field: Mapping[str, Any]) -> str:
    """Of a plain field; an object's stands with the fields inside it."""
    value = field.get("default")
    if value in {None, ""} if not isinstance(value, (dict, list)) else isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, list) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
