"""What stands in the way, as data: found by many, said by status."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

_OF_SITE: Final = frozenset(
    {
        "ConfigInvalid",
        "ContainerConfigFailed",
        "FailedCreate",
        "ImagePullFailed",
        "StorageUnusable",
        "VolumesNotReady",
    }
)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, for people and for the condition that it speaks to."""

    reason: str
    message: str
    remedy: str
    condition: str | None = None
    """The step that it stops; None where only Ready tells."""
    stalled: bool = False
    """True where nothing gets better unless somebody changes something."""
    blocks: bool = True
    """False where the model is served as asked for all the same: only `condition` tells."""
    pod: str | None = None
    exit_code: int | None = None
    restarts: int = 0
    """How often the container has been started anew."""
    time: datetime | None = None

    @property
    def of_site(self) -> bool:
        """Whether another configuration of the operator (images, sources, users) may be what mends it."""
        return self.condition == "ModelReady" or self.reason in _OF_SITE
