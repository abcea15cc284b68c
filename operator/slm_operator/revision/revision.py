"""A revision: everything that pods are made of, as it was when it was decided.

It is kept whole in a ControllerRevision: the class's bundle, the image and the template are looked up there, never inferred
from what the operator's configuration says today. Its name carries a digest of its content, so the same decision is the same
object, and content never changes under a name.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Self

from pydantic import Field, ValidationError, field_validator

from slm_contract.config import AdapterConfig, ModelConfig
from slm_contract.report import ModelFacts
from slm_operator.crd.names import REVISION_LABEL, revision_name
from slm_operator.crd.quantities import parse_quantity
from slm_operator.digest import digest
from slm_operator.model.source import lies_elsewhere
from slm_operator.observed.pods import parse_time
from slm_operator.placement.rejection import Kept, Rejected
from slm_operator.settings import HardwareClass
from slm_operator.snapshot import Document

_PARTS: Final = 6
"""Of the sum of a replica's memory, whatever it serves."""
_IDENTITY: Final = frozenset({"name", "number", "since"})


class FittedMemory(Kept):
    """Bytes, and the sum in words; nothing but `request` where the spec gives the memory."""

    weights: int | None = None
    kv_cache: int | None = None
    recurrent_state: int | None = None
    snapshots: int | None = None
    """None: there are none, or an earlier version's revision."""
    compute: int | None = None
    outputs: int | None = None
    process: int | None = None
    projector: int | None = None
    """None: there is none."""
    request: str
    fits: bool = True
    explanation: str

    @property
    def headroom(self) -> int | None:
        """What the request has on top of the sum, below zero where less was given; None where a part isn't known."""
        known = [
            each
            for each in (
                self.weights,
                self.kv_cache,
                self.recurrent_state,
                self.compute,
                self.outputs,
                self.process,
            )
            if each is not None
        ]
        if len(known) < _PARTS:
            return None
        beside = (self.snapshots or 0) + (self.projector or 0)
        return int(parse_quantity(self.request)) - sum(known) - beside


class Revision(Kept):
    name: str = ""
    """Of the ControllerRevision; empty until it is named by its content."""
    number: int = 0
    """Counts up over the life of the SLMDeployment."""
    since: datetime | None = None
    """When it was first made."""

    hardware_class: HardwareClass
    """The bundle as it was."""
    artifact: ModelConfig
    adapters: tuple[AdapterConfig, ...] = ()
    projector: ModelConfig | None = None
    image: str
    context_length: int | None = None
    memory: FittedMemory
    reason: str
    """Why this class."""
    rejected: tuple[Rejected, ...] = ()
    format_reason: str = ""
    """Why this number format, where it was chosen."""
    facts: dict[str, ModelFacts] = Field(default_factory=dict)
    """By model key: the headers that had a say."""
    spec: str
    """Digest of the spec's parts that it was made from; so are the next two."""
    placement: str
    site: str
    template: dict[str, Any]
    """The pod template, whole."""

    @field_validator("hardware_class", mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:
        """A newer version's bundle may have more fields; a typing error was found when it was configured."""
        if not isinstance(value, Mapping):
            return value
        known = {name for each in HardwareClass.model_fields.items() for name in (each[0], each[1].alias)}
        return {key: each for key, each in value.items() if key in known}

    @property
    def companions(self) -> tuple[ModelConfig, ...]:
        """What is brought, kept and counted with the artifact."""
        projector = () if self.projector is None else (self.projector,)
        return (*self.adapters, *projector)

    @property
    def artifact_facts(self) -> ModelFacts | None:
        """Of the artifact that it runs."""
        return self.facts.get(self.artifact.key)

    @property
    def beside_bytes(self) -> int:
        """Of its companions, as far as they are fetched and their size is known."""
        fetched = (each.key for each in self.companions if not lies_elsewhere(each))
        return sum(self.facts[key].size_bytes for key in fetched if key in self.facts)

    @property
    def own_facts(self) -> ModelFacts | None:
        """Of the artifact that it runs; the size is that of its companions too."""
        facts = self.artifact_facts
        known = [self.facts[each.key] for each in self.companions if each.key in self.facts]
        if facts is None or not known:
            return facts
        return facts.model_copy(
            update={"size_bytes": sum((each.size_bytes for each in known), facts.size_bytes)}
        )

    @property
    def folders(self) -> tuple[str, ...]:
        """Of a model volume: what it runs of it."""
        return (self.artifact.folder, *(each.folder for each in self.companions))

    @property
    def data(self) -> dict[str, Any]:
        """What is kept, as JSON."""
        return self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude=set(_IDENTITY)
        )

    def makes_pods_of(self, other: Self) -> bool:
        """Whether both ask for the same pods: why a class was taken, or what was learnt of the model since, rolls none."""
        inputs = ("hardware_class", "artifact", "companions", "image", "spec", "site")
        same = all(getattr(self, name) == getattr(other, name) for name in inputs)
        return same and self.memory.request == other.memory.request

    def named(self, instance: str, number: int) -> Self:
        """The revision under the name that its content gives it."""
        name = revision_name(instance, digest(self.data)[:10])
        return self.model_copy(update={"name": name, "number": number})


def labelled(template: dict[str, Any]) -> dict[str, Any]:
    """A pod template that its pods are told by, whatever webhooks make of them."""
    metadata = template.get("metadata", {})
    labels = {**metadata.get("labels", {}), REVISION_LABEL: digest(template)[:10]}
    return {**template, "metadata": {**metadata, "labels": labels}}


def parse_revision(document: Document) -> Revision | None:
    """The revision in a ControllerRevision; None where this version can't read it."""
    metadata = document["metadata"]
    try:
        revision = Revision.model_validate(document.get("data") or {})
    except ValidationError:
        return None
    created = metadata.get("creationTimestamp")
    return revision.model_copy(
        update={
            "name": metadata["name"],
            "number": int(document.get("revision") or 0),
            "since": parse_time(created) if created else None,
        }
    )
