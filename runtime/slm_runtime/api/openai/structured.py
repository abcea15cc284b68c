"""`response_format`: what the text must look like, as a constraint on sampling."""

from typing import Any, Literal

import msgspec

from slm_runtime.api.conversation.schema import schema_text
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Constraint


class JsonSchema(msgspec.Struct):
    name: str | None = None
    """OpenAI asks for one, and nothing depends on it."""
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class StructuredOutputs(msgspec.Struct):
    """vLLM's, of which one is said."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class StructuredFields(msgspec.Struct, kw_only=True):
    """The form of an answer in the words of vLLM and llama-server."""

    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None

    def constraint(self) -> Constraint | None:
        """Turn the first that is said into a constraint.

        Raises
        ------
        BadRequest
        """
        said = self.structured_outputs or StructuredOutputs()
        schemas = {
            "structured_outputs.json": said.json,
            "guided_json": self.guided_json,
            "json_schema": self.json_schema,
        }
        for param, schema in schemas.items():
            if schema:
                return Constraint("json_schema", schema_text(_object(schema, param), param))
        if pattern := said.regex or self.guided_regex:
            return Constraint("regex", pattern)
        if choice := said.choice or self.guided_choice:
            alternatives = (msgspec.json.encode(each).decode() for each in choice)
            return Constraint("lark", f"start: {' | '.join(alternatives)}")
        if grammar := said.grammar or self.guided_grammar or self.grammar:
            return Constraint("gbnf" if "::=" in grammar else "lark", grammar)
        return Constraint("json_object") if said.json_object else None


def _object(schema: dict[str, Any] | str, param: str) -> dict[str, Any]:
    """A schema as JSON text is one too, to vLLM."""
    if isinstance(schema, dict):
        return schema
    try:
        return msgspec.json.decode(schema, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest(f"'{param}' must be a JSON schema.", param=param) from None


class ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    """Beside the type, as llama-server takes it."""


def constraint(wanted: ResponseFormat | None) -> Constraint | None:
    """Turn the format into a constraint; the engine says whether it can follow the schema.

    Raises
    ------
    BadRequest
    """
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        if wanted.schema is not None:
            return Constraint("json_schema", schema_text(wanted.schema, "response_format.schema"))
        return Constraint("json_object")
    param = "response_format.json_schema"
    if wanted.json_schema is None and wanted.schema is not None:
        return Constraint("json_schema", schema_text(wanted.schema, "response_format.schema"))
    if wanted.json_schema is None:
        raise BadRequest(f"Missing required parameter: '{param}'.", param=param)
    if wanted.json_schema.schema is None:
        return Constraint("json_object")
    text = schema_text(wanted.json_schema.schema, f"{param}.schema")
    return Constraint("json_schema", text, bool(wanted.json_schema.strict))
