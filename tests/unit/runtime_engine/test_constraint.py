"""Structured output on small vocabularies."""

import json

import numpy as np
import pytest

from slm_runtime.api.conversation.schema import FORMATS
from slm_runtime.engine.messages import Constraint
from slm_runtime.sampling.constraint import Grammars, InvalidConstraint


class Ascii:
    """A token a character, and a tokenizer that puts a blank before every text, as SentencePiece does."""

    size = 130
    bos: int | None = None
    eos: int | None = 128
    end_tokens = frozenset({128, 129})

    def tokenize(self, text, *, parse_special):
        return [32, *text.encode()]

    def add_special(self, tokens):
        return tokens

    def piece(self, token, *, special):
        return f"<{token}>".encode() if self.is_special(token) else bytes([token])

    def is_special(self, token):
        return token >= 128


def compile_(kind, text="", *, strict=False):
    return Grammars(Ascii()).compile(Constraint(kind, text, strict))


def walk(matcher, text):
    for character in text.encode():
        mask = matcher.allowed()
        assert mask[character]
        assert matcher.allows(character)
        matcher.accept(character)


def allowed(matcher):
    return set(np.flatnonzero(matcher.allowed()).tolist())


def test_what_is_forced_is_forced_without_a_blank():
    matcher = compile_("lark", 'start: "yes"')
    assert allowed(matcher) == {ord("y")}
    walk(matcher, "yes")
    assert matcher.complete or allowed(matcher) <= {128, 129}


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_form_of_strings_that_the_api_knows_is_known_here(form):
    compile_("json_schema", json.dumps({"type": "string", "format": form}))


def test_of_several_schemas_each_has_its_own_references():
    def schema(kind):
        definition = {"type": "object", "properties": {"y": {"type": kind}}, "required": ["y"]}
        root = {"type": "object", "properties": {kind: {"$ref": "#/$defs/X"}}, "required": [kind]}
        return {**root, "$defs": {"X": definition}}

    schemas = json.dumps([schema("integer"), schema("boolean")])
    for text in (
        '{"integer": {"y": 1}}',
        '{"boolean":\n{"y": true}}',
        f'{{"boolean":{" " * 16}{{"y": true}}}}',
    ):
        matcher = compile_("json_schemas", schemas)
        walk(matcher, text)
        assert matcher.complete or allowed(matcher) <= {128, 129}
    matcher = compile_("json_schemas", schemas)
    walk(matcher, '{"boolean": {"y": ')
    assert allowed(matcher) & set(b"0123456789") == set()
    with pytest.raises(InvalidConstraint, match=r"this json_schema can't be used.*nowhere"):
        compile_("json_schemas", json.dumps([{"$ref": "#/$defs/nowhere"}, {}]))


def test_of_several_schemas_each_must_be_one_that_can_be_followed_whatever_their_order():
    lists = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    for place, schemas in ((1, [lists, {"type": "boolean"}]), (2, [{"type": "boolean"}, lists])):
        with pytest.raises(InvalidConstraint, match=rf"uniqueItems.*the {place}\. of 2"):
            compile_("json_schemas", json.dumps(schemas), strict=True)


def test_of_a_form_and_its_alternatives_only_the_form_must_be_one_that_can_be_followed():
    lists = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    with pytest.raises(InvalidConstraint, match="uniqueItems"):
        compile_("json_schema_or", json.dumps([lists, {"type": "boolean"}]), strict=True)
    matcher = compile_("json_schema_or", json.dumps([{"type": "boolean"}, {"$ref": "#/nowhere"}, lists]))
    assert allowed(matcher) - set(b" \n\t") == set(b"tf[")
    walk(matcher, "[1")


def test_what_no_grammar_can_say_is_ignored_unless_it_must_be_followed():
    schema = json.dumps(
        {"type": "array", "items": {"type": "integer", "not": {"const": 1}}, "uniqueItems": True}
    )
    for kind, text in (
        ("json_schema", schema),
        ("json_schemas", f"[{schema}]"),
        ("json_schema_or", f"[{schema}]"),
    ):
        walk(compile_(kind, text), "[1, 1]")
        with pytest.raises(InvalidConstraint, match="without 'strict'"):
            compile_(kind, text, strict=True)


def test_each_kind_allows_what_it_says():
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    walk(compile_("json_schema", schema), '{"a": 1}')
    walk(compile_("json_object"), '{"any": [true]}')
    walk(compile_("regex", "[0-9]{2}-x"), "42-x")
    walk(compile_("gbnf", 'root ::= "a" | "b"'), "b")


def test_one_of_several_is_any_of_them():
    """What pydantic writes for a union."""
    schema = {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}, {"type": "null"}]}
    walk(compile_("json_schema", json.dumps(schema)), '"abcd"')
    walk(compile_("json_schemas", json.dumps([schema, {"type": "boolean"}])), "null")


def test_what_is_wrong_with_a_pattern_is_said():
    with pytest.raises(InvalidConstraint, match="look-around"):
        compile_("json_schema", json.dumps({"type": "string", "pattern": "(?=a)b"}))


def test_blanks_in_json_have_an_end():
    matcher = compile_("json_object")
    walk(matcher, "{" + " " * 16)
    assert ord(" ") not in allowed(matcher)


def test_a_copy_goes_its_own_way():
    matcher = compile_("regex", "ab|cd")
    other = matcher.copy()
    matcher.accept(ord("a"))
    assert allowed(matcher) == {ord("b")}
    assert allowed(other) == {ord("a"), ord("c")}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_schema", "{"),
        ("json_schema", '{"type": "nonsense"}'),
        ("regex", "("),
        ("lark", "start: nothing"),
        ("gbnf", "root ::= ("),
        ("gbnf", ""),
        ("regex", "a" * 300_000),
        ("json_schema", '{"$ref": "https://example.com/schema"}'),
        ("json_schema", json.dumps({"allOf": [{"const": 1}, {"const": 2}]})),
    ],
)
def test_what_can_t_be_read_is_said_in_a_line(kind, text):
    with pytest.raises(InvalidConstraint) as error:
        compile_(kind, text)
    assert kind in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("regex", "(a{1,1000}){1,1000}"),
        ("regex", "(" * 5000 + "a" + ")" * 5000),
        ("json_schema", '{"allOf":[' * 2000 + "{}" + "]}" * 2000),
        ("json_schema", '{"$ref":"#"}'),
        ("lark", "start: start start | start"),
        ("gbnf", "root ::= " + "(" * 3000 + '"a"' + ")" * 3000),
        ("lark", 'start: "a"{1,1000000}'),
    ],
)
def test_hostile_ones_are_refused_or_work_in_bounds(kind, text):
    message = ""
    try:
        compile_(kind, text).allowed()
    except InvalidConstraint as error:
        message = str(error)
    assert len(message) < 500
