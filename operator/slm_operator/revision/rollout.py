"""What is remembered of a rollout: the revision in use, since when, what to go back to, and what was tried without success.

It stands on the Deployment as one annotation, written with the change that it remembers. Attempts carry times of their own,
so patience survives pods that are made anew, edits, restarts and clocks that differ.
"""

import json
from datetime import datetime
from enum import StrEnum

from pydantic import ValidationError

from slm_operator.crd.names import ROLLOUT_ANNOTATION
from slm_operator.placement.rejection import Kept
from slm_operator.snapshot import Document


class Ended(StrEnum):
    """Why an attempt was given up, where pods themselves don't say."""

    UNSCHEDULED = "Unscheduled"
    TOO_LITTLE_MEMORY = "TooLittleMemory"


class Attempt(Kept):
    """Something that was tried: a class that waits for nodes, or a revision that never served."""

    hardware_class: str
    artifact: str
    """Source of the model."""
    tried: str
    """Digest of what was tried: of the placement for a class that found no node, of all inputs for a revision."""
    revision: str
    """Its name."""
    since: datetime
    until: datetime | None = None
    """When it was given up; None while it goes on."""
    cause: str
    """`Unscheduled`, or the reason of the fault that ended it."""
    message: str = ""


class Rollout(Kept):
    revision: str
    """Name of the revision in use."""
    since: datetime
    """When it was taken, or its pods were asked for again."""
    tried: str = ""
    """Digest of the inputs that it was decided from: a correction isn't blamed for what it corrects."""
    fallback: str | None = None
    """Name of the last revision that served; its own where it has served before."""
    attempts: tuple[Attempt, ...] = ()

    def to_json(self) -> str:
        dumped = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return json.dumps(dumped, separators=(",", ":"), ensure_ascii=False)


def parse_rollout(deployment: Document | None) -> Rollout | None:
    """What the Deployment remembers; None where nothing that this version understands."""
    if deployment is None:
        return None
    text = (deployment["metadata"].get("annotations") or {}).get(ROLLOUT_ANNOTATION)
    try:
        return None if text is None else Rollout.model_validate_json(text)
    except ValidationError:
        return None
