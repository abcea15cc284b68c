import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from slm_runtime.api.conversation.schema import SCHEMA_BYTES, inside, schema_text, unheeded
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Constraint

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def closed(schema: dict[str, Any]) -> Any:
    return json.loads(schema_text(schema, "format"))


def allows(schema: dict[str, Any], document: Any) -> bool:
    return Draft202012Validator(closed(schema)).is_valid(document)


def test_an_object_has_the_properties_it_lists_and_no_others() -> None:
    assert allows(CITY, {"city": "Paris"})
    assert not allows(CITY, {"city": "Paris", "country": "France"})


def test_a_part_of_a_schema_keeps_its_references() -> None:
    tree: dict[str, Any] = {
        "type": "object",
        "properties": {
            "city": {"$ref": "#/$defs/City"},
            "parts": {"type": "array", "items": {"$ref": "#"}},
            "default": {"$ref": "#/components/Number", "default": {"$ref": "#"}},
        },
        "required": ["city"],
        "$defs": {"City": {"type": "string", "const": "#/$defs/City"}},
        "components": {
            "Number": {"allOf": [{"$ref": "#/components/Integer"}]},
            "Integer": {"type": "integer"},
        },
    }
    whole: dict[str, Any] = {
        "type": "object",
        "properties": {"call": inside(tree, "/properties/call", "tools")},
    }
    valid = Draft202012Validator(whole).is_valid
    leaf = {"city": "#/$defs/City"}
    assert valid({"call": {**leaf, "parts": [leaf]}})
    assert not valid({"call": {**leaf, "parts": [{"city": 1}]}})
    assert not valid({"call": {"city": "x"}})
    assert valid({"call": {**leaf, "default": 1}})
    assert not valid({"call": {**leaf, "default": "x"}})
    assert whole["properties"]["call"]["properties"]["default"]["default"] == {"$ref": "#"}
    assert tree["properties"]["city"] == {"$ref": "#/$defs/City"}
    addressed = {"$id": "https://corp.example/tree", **tree}
    assert inside(addressed, "/properties/call", "tools")["properties"]["city"] == {"$ref": "#/$defs/City"}


def test_objects_are_closed_wherever_they_stand() -> None:
    schema = {
        "type": "object",
        "properties": {
            "cities": {"type": "array", "items": CITY},
            "home": {"anyOf": [{"$ref": "#/$defs/home"}, {"type": "null"}]},
        },
        "$defs": {"home": CITY},
    }
    more = {"city": "Paris", "more": 1}
    assert allows(schema, {"cities": [{"city": "Paris"}], "home": {"city": "Rome"}})
    assert not allows(schema, {"cities": [more]})
    assert not allows(schema, {"home": more})


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"type": "object"}, {"any": "thing"}),
        ({**CITY, "additionalProperties": True}, {"city": "x", "more": 1}),
        ({**CITY, "additionalProperties": {"type": "integer"}}, {"city": "x", "more": 1}),
        ({**CITY, "patternProperties": {"^x": {}}}, {"city": "x", "x1": 1}),
        ({**CITY, "required": ["city", "country"]}, {"city": "x", "country": "y"}),
        ({"allOf": [CITY, {"type": "object", "properties": {"b": {}}}]}, {"city": "x", "b": 1}),
        ({**CITY, "anyOf": [{"properties": {"b": {}}, "required": ["b"]}]}, {"city": "x", "b": 1}),
        ({"const": {"properties": {"a": {}}}}, {"properties": {"a": {}}}),
        ({"type": "object", "properties": {"properties": {"type": "object"}}}, {"properties": {"a": 1}}),
    ],
)
def test_what_is_meant_to_be_open_stays_open(schema: dict[str, Any], document: Any) -> None:
    assert allows(schema, document)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"type": "array", "uniqueItems": False}, {"type": "array"}),
        ({"type": "object", "propertyNames": {"type": "string"}}, {"type": "object"}),
        (
            {"type": "object", "unevaluatedProperties": False},
            {"type": "object", "additionalProperties": False},
        ),
        ({"type": "array", "items": {"dependentRequired": {}}}, {"type": "array", "items": {}}),
        ({"type": "array", "uniqueItems": True}, {"type": "array", "uniqueItems": True}),
    ],
)
def test_what_says_nothing_goes(said: dict[str, Any], left: dict[str, Any]) -> None:
    assert closed(said) == left


def test_what_an_answer_may_go_against_is_named() -> None:
    schema = json.dumps(
        {"items": {"uniqueItems": True, "const": {"not": 1}}, "not": {}, "properties": {"if": {}}}
    )
    assert unheeded(Constraint("json_schema", schema)) == ["not", "uniqueItems"]
    assert unheeded(Constraint("json_schemas", f"[{{}}, {schema}]")) == ["not", "uniqueItems"]
    assert unheeded(Constraint("json_schema_or", f"[{{}}, {schema}]")) == []
    assert unheeded(Constraint("json_schema", schema, strict=True)) == []
    assert unheeded(Constraint("regex", "{")) == []


def test_the_clients_own_schema_is_left_as_it_was() -> None:
    given = json.loads(json.dumps(CITY))
    schema_text(given, "format")
    assert given == CITY


def test_bounds() -> None:
    with pytest.raises(BadRequest, match=str(SCHEMA_BYTES)):
        schema_text({"const": "x" * SCHEMA_BYTES}, "format")
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    with pytest.raises(BadRequest, match="nested too deeply"):
        schema_text(deep, "format")


WORDS = "type object properties required items anyOf allOf $ref $defs a b".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=15,
)


@given(schema=st.dictionaries(st.sampled_from(WORDS), JSON, max_size=4))
def test_whatever_a_client_sends_as_a_schema_is_text(schema: dict[str, Any]) -> None:
    schema_text(schema, "format")
