"""The base of the contract's models: camelCase on the wire, frozen, tolerant of a newer writer."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ContractModel(BaseModel):
    """Unknown fields are ignored: the other side may be one version newer."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=()
    )

    def to_json(self) -> str:
        """One line of JSON, wire names, nothing that is unset: equal models give equal text."""
        return self.model_dump_json(by_alias=True, exclude_none=True)
