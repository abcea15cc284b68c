"""What the present spec and the operator's configuration ask for."""

from collections.abc import Mapping, Sequence

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import human_bytes, memory_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.digest import digest
from slm_operator.faults import Fault
from slm_operator.model.known import drifted, drifted_companions, reported_facts
from slm_operator.placement.choose import (
    Placement,
    as_decided,
    candidates,
    looked_at,
    memory_given,
    place,
)
from slm_operator.placement.companions import companions_of
from slm_operator.revision.digests import bundle_digest, placement_digest, site_digest, spec_digest
from slm_operator.revision.history import History
from slm_operator.revision.revision import FittedMemory, Revision
from slm_operator.settings import HardwareClass, Settings
from slm_operator.snapshot import Snapshot
from slm_operator.target import rollback


class Wanted:
    """What the present spec and configuration ask for, beside what runs."""

    def __init__(
        self, snapshot: Snapshot, resource: SLMDeployment, history: History, *, served: bool
    ) -> None:
        self.snapshot = snapshot
        self.resource = resource
        self.history = history
        self.served = served
        """Whether the current revision has made a token for clients."""
        self.settings = snapshot.settings
        self.spec = spec_digest(resource)
        self.placement = placement_digest(resource.spec)
        known = {
            **reported_facts(snapshot.pods),
            **(history.current.facts if history.current is not None else {}),
        }
        moved = self._moved()
        self.refreshes = bool(moved)
        """Whether a source has moved on, and the spec asks to follow."""
        inspected = reported_facts(snapshot.pods, ("inspect",)) if moved else {}
        known = {key: each for key, each in known.items() if key not in moved}
        known |= {key: each for key, each in inspected.items() if key in moved}
        self.facts = relevant(resource, self.settings, known, self.decided)
        self.site = site_digest(self.settings, resource.spec.model)

    @property
    def tried(self) -> str:
        """Digest of all that a revision is made from: what failed isn't tried again while it is the same."""
        classes = [bundle_digest(each) for each in self.settings.classes]
        return digest([self.spec, self.placement, self.site, classes])

    @property
    def newer(self) -> bool:
        """Whether the configuration has another image or bundle for the class in use, and the spec consents."""
        current = self.history.current
        chosen = None if current is None else self.class_named(current.hardware_class.name)
        if current is None or chosen is None or self.resource.spec.rollout.upgrade != "Auto":
            return False
        return current.image != self.image(chosen) or bundle_digest(current.hardware_class) != bundle_digest(
            chosen
        )

    @property
    def decided(self) -> ModelConfig | None:
        """The artifact that was decided of the same parts of the spec: what its format was chosen from still holds."""
        current = self.history.current
        return current.artifact if current is not None and current.placement == self.placement else None

    def _moved(self) -> frozenset[str]:
        """Keys of what the spec asks to follow."""
        current, pods = self.history.current, self.snapshot.pods
        if current is None or self.resource.spec.model.refresh_policy != "OnChange":
            return frozenset()
        keys = set(drifted_companions(pods, current.companions))
        return frozenset(keys | ({current.artifact.key} if drifted(pods, current.artifact) else set()))

    def may_learn(self, faults: Sequence[Fault]) -> bool:
        """Whether pods were killed for memory, and more may be tried."""
        current = self.history.current
        return (
            current is not None
            and current.spec == self.spec
            and memory_given(self.resource) is None
            and rollback.short_of_memory(faults, current)
            and rollback.lessons(self.history.rollout, self.spec) < rollback.LESSONS
            and self.taught_request(current) != current.memory.request
        )

    def taught_request(self, current: Revision) -> str:
        """The request that one lesson more would lead to."""
        placement = place(
            self.snapshot,
            self.resource,
            self.facts,
            previous=current.hardware_class.name,
            decided=self.decided,
        )
        if placement.fit is None:
            return current.memory.request
        times = rollback.lessons(self.history.rollout, self.spec) + 1
        return rollback.taught(self.memory(placement), times, self.available(current.hardware_class)).request

    def class_named(self, name: str) -> HardwareClass | None:
        return next((each for each in self.settings.classes if each.name == name), None)

    def image(self, hardware_class: HardwareClass) -> str:
        return image_of(self.resource, self.settings, hardware_class)

    def available(self, hardware_class: HardwareClass) -> int | None:
        """Memory of the largest node for the class, bytes; None where unknown."""
        if self.snapshot.nodes is None:
            return None
        return self.snapshot.nodes.offer(hardware_class, self.resource.spec.hardware).memory or None

    def memory(self, placement: Placement) -> FittedMemory:
        given, fitted = memory_given(self.resource), placement.fit
        if fitted is None:
            return FittedMemory(
                request=memory_quantity(given or 0),
                explanation=f"spec.resources gives {human_bytes(given or 0)}",
            )
        total = fitted.estimate
        words = (
            fitted.explanation
            if given is None
            else f"{fitted.explanation}; spec.resources gives {human_bytes(given)}"
        )
        return FittedMemory(
            weights=total.weights,
            kv_cache=total.kv_cache,
            recurrent_state=total.recurrent_state,
            snapshots=total.snapshots or None,
            compute=total.compute,
            outputs=total.outputs,
            process=total.process,
            projector=total.projector,
            request=memory_quantity(total.request if given is None else given),
            fits=fitted.fits,
            explanation=words,
        )


def image_of(resource: SLMDeployment, settings: Settings, hardware_class: HardwareClass) -> str:
    """The runtime image: the spec's, else the class's, else the operator's default."""
    return resource.spec.runtime.image or hardware_class.image or settings.runtime_image


def relevant(
    resource: SLMDeployment,
    settings: Settings,
    facts: Mapping[str, ModelFacts],
    decided: ModelConfig | None = None,
) -> dict[str, ModelFacts]:
    """Facts of artifacts that the spec still names, and of the formats that were looked at for them."""
    found, _ = candidates(resource, settings)
    catalog = settings.catalog
    named = [*found, *(as_decided(each, decided, resource, catalog) for each in found)]
    artifacts = [each for candidate in named for each in looked_at(candidate, resource, catalog, facts)]
    companions = (each for artifact in artifacts for each in companions_of(resource, artifact))
    keys = {each.key for each in (*artifacts, *companions)}
    return {key: value for key, value in facts.items() if key in keys}
