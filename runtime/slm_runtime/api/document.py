"""The OpenAPI document of what is really served, from the routes and the types that check requests."""

import re
from typing import Any, Final

import msgspec

from slm_runtime.api.http.auth import KEYLESS_METHODS, KEYLESS_PATHS
from slm_runtime.version import VERSION

_REF: Final = "#/components/schemas/{name}"
_KEYS: Final = {
    "key": {"type": "http", "scheme": "bearer"},
    "anthropicKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_ERRORS: Final = {
    "400": "The request can't be honoured; the sentence says which field and why.",
    "401": "No API key, or none that is known.",
    "404": "Another model than the one served.",
    "405": "Not a method of this path; Allow has those that are.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "429": "The queue is full; Retry-After says when to come again.",
    "500": "A fault of the server's; its log has the details.",
    "501": "Ollama's way to change what is served, which is the deployment's to say.",
    "503": "Loading, draining or restarting.",
}


class Operation(msgspec.Struct, frozen=True):
    """One route, for people."""

    method: str
    path: str
    summary: str
    body: type[msgspec.Struct] | None = None
    no_effect: tuple[str, ...] = ()
    """Fields of the body that are taken, though the type doesn't read them."""


def openapi(operations: list[Operation], *, keys: bool = True, strict: bool = False) -> dict[str, Any]:
    """Describe the operations as OpenAPI 3.1; `keys`: requests need one; `strict`: unknown fields are refused."""
    bodies = list(dict.fromkeys(operation.body for operation in operations if operation.body is not None))
    schemas, components = msgspec.json.schema_components(bodies, ref_template=_REF)
    by_body = dict(zip(bodies, schemas, strict=True))
    for operation in operations:
        if operation.body is not None:
            component = components[operation.body.__name__]
            if not strict:
                component.pop("additionalProperties", None)
            properties = component["properties"]
            properties |= {name: {"description": "Has no effect."} for name in operation.no_effect}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace("{rest}", "{name}")
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation, by_body)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "slm-runtime",
            "version": VERSION,
            "description": "One small language model, for OpenAI's, Anthropic's and Ollama's clients.",
        },
        "security": [{name: []} for name in _KEYS] if keys else [],
        "paths": paths,
        "components": {
            "schemas": components,
            **({"securitySchemes": _KEYS} if keys else {}),
        },
    }


def _describe(operation: Operation, by_body: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_"),
        "responses": {"200": {"description": "The answer."}},
    }
    if operation.path.encode() in KEYLESS_PATHS and operation.method in KEYLESS_METHODS:
        described["security"] = []
    else:
        described["responses"] |= {code: {"description": text} for code, text in _ERRORS.items()}
    if operation.path.endswith("{rest}"):
        described["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_body[operation.body]}},
        }
    return described
