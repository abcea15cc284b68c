"""The CustomResourceDefinition, generated from the models: a structural schema, CEL rules, columns, subresources."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from slm_operator.crd.base import rule
from slm_operator.crd.names import GROUP, KIND, NAME_LIMIT, PLURAL, SHORT_NAMES, SINGULAR, VERSION
from slm_operator.crd.spec import Spec
from slm_operator.crd.status import Status

_DROPPED: Final = frozenset({"title", "$defs", "additionalProperties"})

NAME_RULE: Final = rule(
    f"self.metadata.name.size() <= {NAME_LIMIT} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    f"metadata.name becomes a Service: write at most {NAME_LIMIT} lowercase letters, digits and '-', a letter first",
)

UNSEEN: Final = {"observedGeneration": -1}
"""The status before the operator has looked: no generation is this one, so kstatus waits rather than takes it for done."""

COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "Model",
        "type": "string",
        "jsonPath": ".status.display.model",
        "description": "Name and quantization",
    },
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": ".status.display.ready",
        "description": "Replicas that serve, of all",
    },
    {
        "name": "Hardware",
        "type": "string",
        "jsonPath": ".status.placement.selected",
        "description": "Hardware class that was selected",
    },
    {
        "name": "Status",
        "type": "string",
        "jsonPath": ".status.conditions[?(@.type=='Ready')].reason",
        "description": "Reason of the Ready condition",
    },
    {
        "name": "Download",
        "type": "integer",
        "jsonPath": ".status.download.percent",
        "description": "Per cent of the model that is there, while it is fetched",
        "priority": 1,
    },
    {
        "name": "Device",
        "type": "string",
        "jsonPath": ".status.acceleration.device",
        "description": "Device that the runtime really runs on",
        "priority": 1,
    },
    {
        "name": "Tok/s",
        "type": "number",
        "jsonPath": ".status.performance.tokensPerSecond",
        "description": "Speed of one stream when it started",
        "priority": 1,
    },
    {
        "name": "Context",
        "type": "integer",
        "jsonPath": ".status.model.contextLength",
        "description": "Tokens that one request may hold",
        "priority": 1,
    },
    {
        "name": "Endpoint",
        "type": "string",
        "jsonPath": ".status.endpoint",
        "description": "Base URL for OpenAI clients",
        "priority": 1,
    },
    {
        "name": "Address",
        "type": "string",
        "jsonPath": ".status.address",
        "description": "Where it is reached from outside",
        "priority": 1,
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def crd() -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": list(SHORT_NAMES),
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": list(COLUMNS),
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _root() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A small language model, served on the best hardware that the cluster really has.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"type": "object"},
            "spec": {**structural(Spec), "description": "What is wanted."},
            "status": {
                **structural(Status),
                "description": "What was decided and observed.",
                "default": UNSEEN,
            },
        },
        "x-kubernetes-validations": [NAME_RULE],
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema as Kubernetes wants it: no references, no unions with null, defaults all the way up."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _expand(schema, schema.get("$defs", {}))


def _expand(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Inline what `schema` refers to; what stands beside a reference goes over what it refers to."""
    merged = dict(schema)
    if "$ref" in merged:
        merged = {**definitions[merged.pop("$ref").rpartition("/")[2]], **merged}
        return _expand(merged, definitions)
    if "x-kubernetes-int-or-string" in merged:
        merged.pop("anyOf", None)
        merged.pop("type", None)
    elif "anyOf" in merged:
        (only,) = (each for each in merged.pop("anyOf") if each.get("type") != "null")
        return _expand({**only, **merged}, definitions)
    result = {
        key: value
        for key, value in merged.items()
        if key not in _DROPPED and not (key == "default" and value is None)
    }
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "properties" in merged:
        result["properties"] = {
            name: _property(each, definitions) for name, each in merged["properties"].items()
        }
    elif "additionalProperties" in merged:
        result["additionalProperties"] = _expand(merged["additionalProperties"], definitions)
    if "items" in merged:
        result["items"] = _without_defaults(_expand(merged["items"], definitions))
    return result


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """An element of a list as it was written: tools that compare whole lists would find in it what nobody wrote."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {name: _without_defaults(each) for name, each in result["properties"].items()}
    return result


def _property(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    result = _expand(schema, definitions)
    if schema.get("default") is not None and "properties" in result:
        # Whole, not `{}`: rules are held against a default before the defaults inside it are filled in.
        result["default"] = {
            name: each["default"] for name, each in result["properties"].items() if "default" in each
        }
    elif result.get("default") in ([], {}):
        del result["default"]
    if result.get("format") == "date-time":
        return {**result, "type": "string"}
    return result
