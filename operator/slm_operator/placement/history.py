"""What is remembered of a placement, on the Deployment itself: a decision that is kept doesn't flap."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from slm_operator.crd.names import HARDWARE_LABEL
from slm_operator.snapshot import Document


class Cause(StrEnum):
    """Why a class was passed over; says whether it may be tried again."""

    UNKNOWN = "Unknown"
    NO_ARTIFACT = "NoArtifact"
    NO_NODES = "NoNodes"
    NO_IMAGE = "NoImage"
    NO_MEMORY = "NoMemory"
    UNSCHEDULED = "Unscheduled"


class _Kept(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=()
    )


class Rejected(_Kept):
    hardware: str
    cause: Cause
    reason: str


class FittedMemory(_Kept):
    """Bytes, and the sum in words; nothing but `request` where the spec gives the memory."""

    weights: int | None = None
    kv_cache: int | None = None
    compute: int | None = None
    request: str
    fits: bool = True
    explanation: str


class Record(_Kept):
    """Everything that was decided for a pod template beyond what the spec says itself."""

    hardware_class: str
    reason: str
    rejected: tuple[Rejected, ...] = ()
    placement: str
    """Digest of what the placement was decided from."""
    image: str
    context_length: int | None = None
    memory: FittedMemory

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)


def parse_record(text: str | None) -> Record | None:
    """The record, or None where there is none that this version understands."""
    try:
        return None if text is None else Record.model_validate_json(text)
    except ValidationError:
        return None


@dataclass(frozen=True)
class Unscheduled:
    """All pods of a class wait for a node."""

    hardware_class: str
    since: datetime
    """When the scheduler first said so of one that still waits."""
    message: str
    """The scheduler's own words."""


def unscheduled(pods: Iterable[Document], hardware_class: str) -> Unscheduled | None:
    """Whether the scheduler has found no node for any pod of the class.

    One that runs, or that the scheduler hasn't judged yet, makes it a partial shortage, which stays.
    """
    found: list[Unscheduled] = []
    for pod in pods:
        metadata = pod["metadata"]
        if (
            metadata.get("labels", {}).get(HARDWARE_LABEL) != hardware_class
            or "deletionTimestamp" in metadata
        ):
            continue
        judged = _scheduled_condition(pod)
        if judged is None or judged.get("status") != "False" or judged.get("reason") != "Unschedulable":
            return None
        found.append(
            Unscheduled(
                hardware_class, parse_time(judged["lastTransitionTime"]), str(judged.get("message", ""))
            )
        )
    return min(found, key=lambda each: (each.since, each.message), default=None)


def _scheduled_condition(pod: Document) -> Mapping[str, str] | None:
    conditions = pod.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each.get("type") == "PodScheduled"), None)


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text)
