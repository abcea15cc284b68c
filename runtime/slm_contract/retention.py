"""Which models of a model volume stay when another one is fetched into it."""

from pydantic import Field

from slm_contract.base import ContractModel


class Retention(ContractModel):
    """Told to the Job that fills a claim, and to nobody else: what it says changes without a change of the pods."""

    version: int = 1
    keep: tuple[str, ...]
    """Folders of models that are in use, or about to be."""
    spare_seconds: float = Field(ge=0)
    """Of the others, those that a pod has started with more recently stay too."""


class Removed(ContractModel):
    """Models that were taken off a model volume, since nothing uses them any more."""

    models: int
    bytes: int
