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
    return Constraint("json_schema", schema_text(wanted.json_schema.schema, f"{param}.schema"))
