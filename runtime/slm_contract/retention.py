"""Which models of a model volume stay when another one is fetched into it."""

from pydantic import Field

from slm_contract.base import ContractModel


class Retention(ContractModel):
    """Told to what fetches alone. What of it changes with the model is told to no pod that serves, lest that be rolled."""

    version: int = 1
    keep: tuple[str, ...]
    """Folders of models that are in use, or about to be."""
    grace_seconds: float = Field(ge=0)
    """How long others stay after they were first found without use."""


class Removed(ContractModel):
    """Models that were taken off a model volume, since nothing uses them any more."""

    models: int
    bytes: int
