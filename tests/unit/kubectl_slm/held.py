"""Documents held to the CRD."""

from functools import cache
from typing import Any

import jsonschema

from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.schema import crd


def valid(document: dict[str, Any]) -> dict[str, Any]:
    """Its spec, once schema and models have taken it; a field that neither knows is an error."""
    _validator().validate(document)
    SLMDeployment.model_validate(document)
    spec: dict[str, Any] = document["spec"]
    return spec


@cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return jsonschema.Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    """What the API server would prune is refused here."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if (
        isinstance(closed.get("properties"), dict)
        and "additionalProperties" not in closed
        and schema.get("type") == "object"
    ):
        closed["additionalProperties"] = False
    return closed
