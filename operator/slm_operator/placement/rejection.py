"""Why a class was passed over, as it is kept and said."""

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Cause(StrEnum):
    """Says whether the class may be tried again."""

    UNKNOWN = "Unknown"
    NO_ARTIFACT = "NoArtifact"
    MISMATCH = "Mismatch"
    """What its model and the adapters are doesn't go together."""
    PROJECTOR_MISMATCH = "ProjectorMismatch"
    """What its model and the projector are doesn't go together."""
    NO_ENGINE = "NoEngine"
    """Its image lacks the engine that its artifact needs, or that lacks what the spec asks for."""
    NO_NODES = "NoNodes"
    NO_IMAGE = "NoImage"
    NO_MEMORY = "NoMemory"
    UNSCHEDULED = "Unscheduled"


_BY_HEADER: Final = frozenset({Cause.NO_MEMORY, Cause.MISMATCH, Cause.PROJECTOR_MISMATCH})


class Kept(BaseModel):
    """What is kept on objects in the cluster: an older version's reading of a newer one's must not fail."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=()
    )


class Rejected(Kept):
    hardware: str
    cause: Cause
    reason: str
    longest_context: int | None = None
    """Tokens that its model can hold, where more were asked for."""
    underived: str | None = None
    """Number format that its image would serve, where another one is to be derived of it."""
    format: str | None = None
    """Format of its artifact, by its header, where that has a say in which engine runs it."""

    @property
    def by_header(self) -> bool:
        """Whether it was passed over for what its model's header says."""
        told = (self.longest_context, self.underived, self.format)
        return self.cause in _BY_HEADER or any(each is not None for each in told)
