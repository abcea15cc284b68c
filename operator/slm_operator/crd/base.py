"""The base of the API's models, and how a field carries a CEL rule beside its type."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

RULES = "x-kubernetes-validations"


class ApiModel(BaseModel):
    """Attribute docstrings become descriptions; unknown fields are a newer CRD's business."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


def rule(expression: str, message: str) -> dict[str, str]:
    """A CEL rule over `self`; the message says what to write instead."""
    return {"rule": expression, "message": message}


def rules(*items: dict[str, str]) -> dict[str, Any]:
    """What `json_schema_extra` takes, for a field or a whole model."""
    return {RULES: list(items)}


def pattern(expression: str, message: str) -> dict[str, Any]:
    """A regular expression (RE2) as a CEL rule: the API server's own text for `pattern` helps nobody."""
    return rules(rule(f"self.matches(r'{expression}')", message))


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
OBJECT_NAME_MESSAGE = (
    "write an object's name: lowercase letters, digits, '-' and '.', a letter or digit first and last"
)

ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=pattern(OBJECT_NAME, OBJECT_NAME_MESSAGE),
    ),
]

HardwareName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        json_schema_extra=pattern(
            DNS_LABEL,
            "write the name of a hardware class or family, such as npu, gpu, cpu or gpu-nvidia: lowercase letters, "
            "digits and '-'",
        ),
    ),
]

Sha256 = Annotated[
    str,
    Field(
        max_length=64,
        json_schema_extra=pattern(
            "^[a-f0-9]{64}$",
            "write the 64 lowercase hexadecimal digits that sha256sum prints for the model file",
        ),
    ),
]

Duration = Annotated[
    str,
    Field(
        max_length=32,
        json_schema_extra=pattern(
            "^([0-9]+(h|m|s))+$", "write a duration such as 30s, 5m or 1h30m: digits followed by h, m or s"
        ),
    ),
]

Quantity = Annotated[
    str | int,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            **rules(
                rule(
                    r"string(self).matches(r'^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$')",
                    "write a quantity such as 500m, 2 or 4Gi",
                )
            ),
        }
    ),
]


class LocalReference(ApiModel):
    name: ObjectName
    """Name of an object in the namespace of the SLMDeployment."""


class EntryReference(LocalReference):
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Entry that is taken; no other reaches a pod."""
