"""JSON schemas as clients mean them: an object that lists its properties has no others.

JSON Schema lets an object have any further property unless it says otherwise, and few schemas that people write or
generate do say so. A small model takes the leave: it invents one property after another and never comes to an end.
Ollama and llama.cpp read schemas the closed way too, and what satisfies a closed schema satisfies it as it was given.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Constraint

SCHEMA_BYTES: Final = 256 * 1024

_NAMED: Final = ("properties", "$defs", "definitions", "patternProperties")
_LISTED: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE: Final = ("items", "additionalProperties")
_VALUES: Final = frozenset({"const", "enum", "default", "examples"})
_DECIDED: Final = frozenset({"additionalProperties", "unevaluatedProperties", "patternProperties"})
FORMATS: Final = frozenset("date-time time date duration email hostname ipv4 ipv6 uri uuid".split())
"""Of strings, those that a model can be held to; JSON Schema has any other for a remark."""
_SAYING_NOTHING: Final[dict[str, tuple[Any, ...]]] = {
    "uniqueItems": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
}
_PARTS: Final = frozenset({"$ref", "anyOf", "oneOf", "allOf"})


_UNHEEDED: Final = frozenset(
    "uniqueItems not if then else contains minContains maxContains propertyNames dependentRequired dependentSchemas "
    "dependencies unevaluatedProperties unevaluatedItems $dynamicRef $recursiveRef".split()
)
"""What the grammars can't be held to."""


def unheeded(constraint: Constraint) -> list[str]:
    """Name the keywords that an answer may go against, in the schemas that it has to follow."""
    if constraint.strict or not constraint.kind.startswith("json_schema"):
        return []
    document = msgspec.json.decode(constraint.text)
    schemas = document if isinstance(document, list) else [document]
    demanded = schemas[:1] if constraint.kind == "json_schema_or" else schemas
    return sorted({key for schema in demanded for one in _schemas(schema) for key in one.keys() & _UNHEEDED})


def schema_text(schema: dict[str, Any], param: str) -> str:
    """Write a schema as JSON, closed and within bounds.

    Raises
    ------
    BadRequest
    """
    try:
        own = msgspec.json.decode(encoded(schema, param))
        _tidy(own)
        _close(own)
        return msgspec.json.encode(own).decode()
    except RecursionError:
        raise BadRequest(f"'{param}' is nested too deeply.", param=param) from None


def encoded(document: Any, param: str) -> bytes:
    """As JSON, within bounds.

    Raises
    ------
    BadRequest
    """
    try:
        text = msgspec.json.encode(document)
    except RecursionError:
        raise BadRequest(f"'{param}' is nested too deeply.", param=param) from None
    if len(text) > SCHEMA_BYTES:
        raise BadRequest(f"'{param}' is longer than {SCHEMA_BYTES} bytes.", param=param)
    return text


def inside(schema: dict[str, Any], pointer: str, param: str) -> dict[str, Any]:
    """The schema as a part of another, in which it stands at `pointer`: closed, within bounds, its references right.

    Raises
    ------
    BadRequest
    """
    own: dict[str, Any] = msgspec.json.decode(schema_text(schema, param))
    stack: list[tuple[Any, bool]] = [(own, False)]
    while stack:
        value, named = stack.pop()
        if isinstance(value, list):
            stack += ((each, False) for each in value)
        if not isinstance(value, dict) or (not named and isinstance(value.get("$id"), str)):
            continue  # what has an address of its own is what its references are relative to
        reference = value.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            value["$ref"] = f"#{pointer}{reference[1:]}"
        stack += (
            (each, not named and key in _NAMED) for key, each in value.items() if named or key not in _VALUES
        )
    return own


def _tidy(schema: dict[str, Any]) -> None:
    """Take away what says nothing: unknown formats, and the empty list that PHP writes for an empty object.

    Of an object that isn't composed, what isn't evaluated is what is additional.
    """
    for one in _schemas(schema):
        if isinstance(one.get("format"), str) and one["format"] not in FORMATS:
            del one["format"]
        if one.get("properties") == []:
            one["properties"] = {}
        if one.get("unevaluatedProperties") is False and not one.keys() & (
            _PARTS | {"if", "dependentSchemas"}
        ):
            one.setdefault("additionalProperties", False)
            del one["unevaluatedProperties"]
        for key, nothing in _SAYING_NOTHING.items():
            if key in one and one[key] in nothing:
                del one[key]


def _close(schema: dict[str, Any]) -> None:
    """Close every object, unless objects are composed of parts: one closed part would shut out the others."""
    schemas = list(_schemas(schema))
    if any(_composes(one) for one in schemas):
        return
    for one in schemas:
        properties = one.get("properties")
        if isinstance(properties, dict) and not one.keys() & _DECIDED and _lists_required(one, properties):
            one["additionalProperties"] = False


def _schemas(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the schema and all below it; what merely looks like one (a constant, a default) is not among them."""
    stack: list[Any] = [root]
    while stack:
        schema = stack.pop()
        if not isinstance(schema, dict):
            continue
        yield schema
        for key, value in schema.items():
            if key in _NAMED and isinstance(value, dict):
                stack += value.values()
            elif key in _LISTED and isinstance(value, list):
                stack += value
            elif key in _SINGLE:
                stack.append(value)


def _composes(schema: dict[str, Any]) -> bool:
    parts = schema.get("allOf")
    return (isinstance(parts, list) and len(parts) > 1) or (
        "properties" in schema and bool(schema.keys() & _PARTS)
    )


def _lists_required(schema: dict[str, Any], properties: dict[str, Any]) -> bool:
    required = schema.get("required", [])
    return isinstance(required, list) and all(isinstance(one, str) and one in properties for one in required)
