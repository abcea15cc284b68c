"""Everything that the status is made from, gathered once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts, RuntimeReport
from slm_contract.source import SourcePin
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.status import ModelStatus
from slm_operator.faults import Fault
from slm_operator.model.catalog import entries, sources_of
from slm_operator.model.known import Removal
from slm_operator.observed.pods import is_ready
from slm_operator.placement.choose import Placement
from slm_operator.revision.history import History
from slm_operator.revision.revision import Revision
from slm_operator.revision.rollout import Rollout
from slm_operator.settings import CatalogEntry, Settings
from slm_operator.snapshot import Document


@dataclass(frozen=True)
class Stage:
    """How far it has come, for conditions that wait."""

    reason: str
    message: str


@dataclass(frozen=True)
class View:
    resource: SLMDeployment
    settings: Settings
    now: datetime
    deployment: Document | None
    """The live Deployment, if it is ours."""
    service: Document | None
    """The live Service, if it is ours."""
    claim: Document | None
    """The live claim of its own, if it is ours."""
    pods: tuple[Document, ...]
    """The pods of the present template."""
    reports: Mapping[str, RuntimeReport]
    faults: tuple[Fault, ...]
    """All that is wrong, the most telling first: of API server, spec, placement, pods."""
    waiting: str | None
    """`Inspecting` or `Pulling`."""
    changing: bool
    """Whether the Deployment is being applied right now."""
    served: frozenset[str]
    """Kinds that a cluster may lack, and this one serves."""
    routes: tuple[Document, ...]
    """The live HTTPRoute and InferencePool, if they are ours."""
    scaler: Document | None
    """The live autoscaler, if it is ours."""
    revision: Revision | None
    """What the pods are made of, or are about to be."""
    rollout: Rollout | None
    history: History
    placement: Placement | None
    artifact: ModelConfig
    fetched_facts: ModelFacts | None
    """What the fetch in the pods has read and verified."""
    latest: SourcePin | None
    """What the source stands for now, where that isn't what was pinned."""
    moved: Mapping[str, SourcePin]
    """By the keys of adapters and projector: what their sources stand for now, where that isn't what was pinned."""
    copies: Document | None
    """The live DaemonSet that brings the model to nodes, if it is ours."""
    copiers: tuple[Document, ...]
    """Its pods."""
    removal: Removal | None
    """What the last pull has taken off the claim, while its pod is there."""

    @property
    def generation(self) -> int:
        return self.resource.metadata.generation

    @cached_property
    def ready_replicas(self) -> int:
        """Of those that are asked for: the surplus of a roll-out comes and goes, and each time would be a write."""
        return min(self._count("readyReplicas"), max(self.resource.replicas, 1))

    @cached_property
    def available(self) -> bool:
        return self.ready_replicas > 0

    @cached_property
    def rolled_out(self) -> bool:
        """Whether all replicas that are asked for are of the present template and ready, and no other is left."""
        if self.deployment is None or self.changing or self.waiting is not None:
            return False
        metadata, wanted = self.deployment["metadata"], self.resource.replicas
        return self._count("observedGeneration") >= int(metadata.get("generation", 1)) and all(
            self._count(field) == wanted for field in ("replicas", "updatedReplicas", "readyReplicas")
        )

    @cached_property
    def ready(self) -> bool:
        """A pod's fault that outlived the roll-out is history; one of spec, placement or API server isn't."""
        return self.rolled_out and all(fault.pod is not None for fault in self.faults if fault.blocks)

    @cached_property
    def fault(self) -> Fault | None:
        """The one that Ready tells: the most telling of those that keep it from being so."""
        blocking = [fault for fault in self.faults if fault.blocks]
        return min(blocking, key=lambda fault: not fault.stalled, default=None)

    @cached_property
    def given_up(self) -> Fault | None:
        """Why what the spec asks for was given up, while the revision before it serves."""
        return next((fault for fault in self.faults if fault.stalled and not fault.blocks), None)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way. What was rolled back isn't: as an upgrade, it keeps others from the same."""
        if self.ready:
            return self.given_up is None
        return self.fault is not None and self.fault.stalled and self.fault.pod is None

    def about(self, condition: str) -> Fault | None:
        """The fault that a condition tells."""
        found = [fault for fault in self.faults if fault.condition == condition]
        return min(found, key=lambda fault: not fault.stalled, default=None)

    @cached_property
    def observed_replicas(self) -> int:
        """Pods that exist; while a change is under way, what was asked for: each step on the way would be a write."""
        if self.rolled_out or (self.fault is not None and self.fault.pod is not None):
            return self._count("replicas")
        return self.resource.replicas if self.deployment is not None or self.changing else 0

    @cached_property
    def facts(self) -> ModelFacts | None:
        """What is known of the model; what a fetch adds is taken in when its pod serves, not in a write of its own."""
        kept = self.revision.facts.get(self.artifact.key) if self.revision is not None else None
        return (self.fetched_facts if self.available else None) or kept

    @cached_property
    def catalog_entry(self) -> CatalogEntry | None:
        """Where the artifact comes from, if it was chosen by a name of the catalog, and still stands there."""
        named = entries(self.resource.spec.model, self.settings.catalog)
        return next((each for each in named if self.artifact.source in sources_of(each)), None)

    @cached_property
    def live_model(self) -> ModelStatus:
        """What the status says of the same model so far: it isn't forgotten when a pod is."""
        live, wanted = self.resource.status.model, self.artifact.quantization
        if live is None or live.source != self.artifact.source:
            return ModelStatus()
        same = live.origin is None if wanted is None else live.quantization == wanted.value
        return live if same else ModelStatus()

    @cached_property
    def current_reports(self) -> tuple[RuntimeReport, ...]:
        """Of the present template's pods: ready ones first, then by name."""
        ordered = sorted(self.pods, key=lambda pod: (not is_ready(pod), str(pod["metadata"]["name"])))
        uids = [str(pod["metadata"].get("uid")) for pod in ordered]
        return tuple(self.reports[uid] for uid in uids if uid in self.reports)

    def _count(self, field: str) -> int:
        status = {} if self.deployment is None else self.deployment.get("status", {})
        return int(status.get(field) or 0)
