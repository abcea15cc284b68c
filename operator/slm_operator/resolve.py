"""From spec and cluster to one answer: what the pods are made of, or what stands in the way. Pure.

A template that was decided stays decided: nothing is asked again until the spec, the class's bundle, the runtime image
(where `rollout.upgrade: Auto`) or the scheduler's patience says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from slm_contract.report import ModelFacts
from slm_operator.crd.names import DECISION_ANNOTATION, INPUTS_ANNOTATION, SITE_ANNOTATION
from slm_operator.crd.quantities import human_bytes, human_seconds, memory_quantity, parse_duration
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.inputs import Rendering, inputs_digest, memory_given, site_digest, spec_digest
from slm_operator.model.allowed import image_allowed, source_allowed
from slm_operator.model.known import kept_facts, reported_facts
from slm_operator.model.source import SourceError, parse_source
from slm_operator.placement.choose import (
    Candidate,
    Placement,
    Question,
    artifact_for,
    candidates,
    place,
    placement_digest,
    recovered,
)
from slm_operator.placement.history import (
    Cause,
    FittedMemory,
    Record,
    Rejected,
    Unscheduled,
    parse_record,
    unscheduled,
)
from slm_operator.settings import HardwareClass, Settings
from slm_operator.snapshot import Document, Snapshot
from slm_operator.status.faults import Fault


@dataclass(frozen=True)
class Resolution:
    """What the pods are made of, or why that isn't known yet."""

    rendering: Rendering | None = None
    """None where nothing was ever decided, or its class is gone from the configuration."""
    settled: bool = False
    """True: the live template stands. False with a rendering: it is to be rendered from it."""
    placement: Placement | None = None
    """The choice that was made now; None where an earlier one stands."""
    facts: Mapping[str, ModelFacts] | None = None
    """By model key: what to keep on the Deployment."""
    problem: Fault | None = None
    """Why there is no answer."""
    requeue_after: float | None = None
    """Seconds until the scheduler's patience ends."""

    @property
    def headers(self) -> tuple[Candidate, ...]:
        """Artifacts whose header must be read, or stay known, before anything is rendered."""
        if self.placement is None or self.rendering is not None:
            return ()
        return self.placement.headers


def resolve(
    snapshot: Snapshot, resource: SLMDeployment, live: Document | None, *, failing: bool
) -> Resolution:
    """Find the answer, or keep the one that stands.

    Parameters
    ----------
    live
        The Deployment, if it is there and ours.
    failing
        Whether its pods fail and none serves: then new settings of the site may be what repairs them.
    """
    annotations: Mapping[str, str] = {} if live is None else live["metadata"].get("annotations", {})
    record = parse_record(annotations.get(DECISION_ANNOTATION))
    question = Question(
        resource=resource,
        classes=snapshot.settings.classes,
        nodes=snapshot.nodes,
        facts=_relevant(resource, snapshot.settings, {**reported_facts(snapshot.pods), **kept_facts(live)}),
        memory_given=memory_given(resource),
    )
    move = _move(question, record, snapshot)
    if record is not None and live is not None:
        standing = _standing(snapshot.settings, resource, record, live)
        repair = failing and annotations.get(SITE_ANNOTATION) != site_digest(snapshot.settings)
        if (
            standing is not None
            and move.same
            and not move.due
            and not repair
            and not recovered(question, record)
        ):
            inputs = inputs_digest(resource, standing.hardware_class)
            newer = resource.spec.rollout.upgrade == "Auto" and record.image != _image(
                resource, standing.hardware_class, snapshot.settings
            )
            if annotations.get(INPUTS_ANNOTATION) == inputs and not newer:
                return Resolution(standing, settled=True, requeue_after=move.wait)
    else:
        repair = False
    problem = _impossible(resource, snapshot.settings)
    if problem is not None:
        return Resolution(problem=problem)
    keep = record if record is not None and move.same and not recovered(question, record) else None
    placement = place(question, previous=keep, barred=move.barred)
    if placement.pending:
        return Resolution(placement=placement, facts=question.facts, requeue_after=move.wait)
    if placement.selected is None:
        return Resolution(placement=placement, facts=question.facts, problem=_nowhere(placement, question))
    chosen = placement.selected.hardware_class
    same_pods = (
        record is not None
        and record.hardware_class == chosen.name
        and annotations.get(INPUTS_ANNOTATION, "").partition(".")[0] == spec_digest(resource)
        and resource.spec.rollout.upgrade == "OnSpecChange"
        and not repair
    )
    decided = _record(question, placement, chosen, snapshot.settings)
    if record is not None and same_pods:
        decided = decided.model_copy(update={"image": record.image})
    artifact = placement.selected.artifact
    rendering = Rendering(
        resource, snapshot.settings, chosen, artifact, decided, question.facts.get(artifact.key)
    )
    return Resolution(rendering, placement=placement, facts=question.facts, requeue_after=move.wait)


@dataclass(frozen=True)
class _Move:
    """Where the scheduler's patience stands."""

    barred: Mapping[str, Rejected]
    same: bool
    """Whether the record was decided from the same parts of the spec."""
    due: bool = False
    wait: float | None = None


def _move(question: Question, record: Record | None, snapshot: Snapshot) -> _Move:
    """Whether the class in use has to be left: none of its pods was scheduled for `fallback.after`, and another would do."""
    spec = question.resource.spec
    if record is None or record.placement != placement_digest(spec):
        return _Move({}, same=False)
    barred = {each.hardware: each for each in record.rejected if each.cause is Cause.UNSCHEDULED}
    waiting = unscheduled(snapshot.pods, record.hardware_class)
    if waiting is None:
        return _Move(barred, same=True)
    longer = {
        **barred,
        record.hardware_class: _refused(waiting, parse_duration(spec.hardware.fallback.after)),
    }
    after_it = place(question, barred=longer)
    if after_it.selected is None:
        return _Move(barred, same=True)
    wait = timedelta(seconds=parse_duration(spec.hardware.fallback.after)) - (snapshot.now - waiting.since)
    if wait > timedelta(0):
        return _Move(barred, same=True, wait=wait.total_seconds())
    return _Move(longer, same=True, due=True)


def _refused(waiting: Unscheduled, after: float) -> Rejected:
    return Rejected(
        hardware=waiting.hardware_class,
        cause=Cause.UNSCHEDULED,
        reason=f"no pod was scheduled for {human_seconds(after)} ({waiting.message[:512]})",
    )


def _standing(
    settings: Settings, resource: SLMDeployment, record: Record, live: Document
) -> Rendering | None:
    """What the live template was rendered from, where its class still exists."""
    chosen = next((each for each in settings.classes if each.name == record.hardware_class), None)
    if chosen is None:
        return None
    artifact = artifact_for(resource, chosen)
    return Rendering(resource, settings, chosen, artifact, record, kept_facts(live).get(artifact.key))


def _relevant(
    resource: SLMDeployment, settings: Settings, facts: Mapping[str, ModelFacts]
) -> dict[str, ModelFacts]:
    """Facts of artifacts that the spec still names."""
    found, _ = candidates(resource, settings.classes)
    keys = {candidate.artifact.key for candidate in found}
    return {key: value for key, value in facts.items() if key in keys}


def _image(resource: SLMDeployment, hardware_class: HardwareClass, settings: Settings) -> str:
    return resource.spec.runtime.image or hardware_class.image or settings.runtime_image


def _record(question: Question, placement: Placement, chosen: HardwareClass, settings: Settings) -> Record:
    spec = question.resource.spec
    fitted = placement.fit
    given = question.memory_given
    if fitted is None:
        memory = FittedMemory(
            request=memory_quantity(given or 0), explanation=f"spec.resources gives {human_bytes(given or 0)}"
        )
    else:
        total = fitted.estimate
        memory = FittedMemory(
            weights=total.weights,
            kv_cache=total.kv_cache,
            compute=total.compute,
            request=memory_quantity(total.request if given is None else given),
            fits=fitted.fits,
            explanation=fitted.explanation
            if given is None
            else f"{fitted.explanation}; spec.resources gives {human_bytes(given)}",
        )
    return Record(
        hardware_class=chosen.name,
        reason=placement.reason,
        rejected=placement.rejected,
        placement=placement_digest(spec),
        image=_image(question.resource, chosen, settings),
        context_length=fitted.estimate.context_length if fitted is not None else None,
        memory=memory,
    )


def _impossible(resource: SLMDeployment, settings: Settings) -> Fault | None:
    """What no waiting helps against, and the API server can't know."""
    model = resource.spec.model
    for source in (model.source, *(variant.source for variant in model.variants)):
        try:
            parse_source(source)
        except SourceError as error:
            return Fault("SourceInvalid", str(error), "correct spec.model.source", "ModelReady", stalled=True)
        if not source_allowed(source, settings.fetch.allowed_sources):
            allowed = ", ".join(settings.fetch.allowed_sources)
            return Fault(
                "SourceNotAllowed",
                f"the operator's configuration doesn't allow {source}",
                f"name a source under one of {allowed}, or have fetch.allowedSources extended",
                "ModelReady",
                stalled=True,
            )
    image = resource.spec.runtime.image
    own = {settings.runtime_image, *(each.image for each in settings.classes)}
    if image is not None and image not in own and not image_allowed(image, settings.allowed_image_prefixes):
        allowed = ", ".join(settings.allowed_image_prefixes) or "none"
        return Fault(
            "ImageNotAllowed",
            f"the operator's configuration doesn't allow the runtime image {image}",
            f"leave out spec.runtime.image, or name one under an allowed registry or repository ({allowed})",
            stalled=True,
        )
    return None


def _nowhere(placement: Placement, question: Question) -> Fault:
    """No class is left: say of which kind that is."""
    causes = {each.cause for each in placement.rejected}
    if causes == {Cause.UNKNOWN}:
        return Fault(
            "UnknownHardware",
            placement.reason,
            "name classes or families of the operator's configuration in spec.hardware.preference",
            "Placed",
            stalled=True,
        )
    if Cause.NO_MEMORY in causes:
        wish = "" if question.resource.spec.runtime.context_length is None else " contextLength,"
        return Fault(
            "DoesNotFit",
            placement.reason,
            f"set{wish} parallel or kvCacheType lower in spec.runtime, name a smaller model, or add a larger node",
            "MemoryFits",
        )
    return Fault(
        "NoHardware",
        placement.reason,
        "add a node that one of the classes can use, or name another class in spec.hardware.preference",
        "Placed",
    )
