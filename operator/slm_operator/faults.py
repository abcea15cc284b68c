"""What stands in the way, as data: found by many, said by status."""

from dataclasses import dataclass
from datetime import datetime


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
