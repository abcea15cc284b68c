"""From spec and cluster to one answer: the revision that shall run, or what stands in the way.

A revision that was decided stays decided: nothing is asked again until the spec, the scheduler's patience, its own failure
or consented changes of the operator's configuration (`rollout.upgrade: Auto`) say so. The questions are asked in the order
in which :func:`find_target` lists them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from slm_operator.crd.names import key_secret_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.faults import Fault
from slm_operator.model.known import pinned
from slm_operator.observed.pods import is_ready
from slm_operator.placement.choose import Candidate, Placement, place
from slm_operator.placement.companions import adapters_of, projector_of
from slm_operator.placement.rejection import Cause
from slm_operator.pod.template import pod_template
from slm_operator.revision.history import History
from slm_operator.revision.revision import Revision, labelled
from slm_operator.revision.rollout import Attempt, Rollout
from slm_operator.snapshot import Document, Snapshot
from slm_operator.target import rollback
from slm_operator.target.patience import Patience, look, recovered
from slm_operator.target.permitted import refused
from slm_operator.target.wanted import Wanted

TURN: Final = 300.0
"""Seconds until an upgrade that waits for others asks by itself: it is told as a rule, and thousands may wait."""


@dataclass(frozen=True)
class Target:
    """What shall run, and what has to be known first."""

    revision: Revision | None = None
    """None: nothing was ever decided."""
    rollout: Rollout | None = None
    """What to remember with it; None only where there is no revision."""
    placement: Placement | None = None
    """The choice that was made now; None where an earlier one stands."""
    faults: tuple[Fault, ...] = ()
    """Why there is no answer, or why it isn't the one that the spec asks for."""
    requeue_after: float | None = None
    """Seconds until time alone would give another answer."""
    upgrading: bool = False
    """Whether only the operator's configuration asks for the change."""
    awaits_turn: bool = False
    """Whether it would, but may not yet."""

    @property
    def headers(self) -> tuple[Candidate, ...]:
        """Artifacts whose header must be read, or stay known, before a revision is made."""
        return () if self.placement is None else self.placement.headers

    @property
    def pending(self) -> bool:
        return self.placement is not None and self.placement.pending


def find_target(
    snapshot: Snapshot,
    resource: SLMDeployment,
    history: History,
    pods: Sequence[Document],
    faults: Sequence[Fault],
) -> Target:
    """Find the answer, or keep the one that stands.

    Parameters
    ----------
    pods
        Those of the current revision.
    faults
        What ails them.
    """
    served = rollback.has_served(resource, history, pods)
    wanted = Wanted(snapshot, resource, history, served=served)
    current, rollout = history.current, history.rollout
    if current is None or rollout is None:
        return _decide(wanted)
    keep = Target(current, rollout)
    failed, wait = (None, None) if served else rollback.failure(resource, history, faults, snapshot.now)
    patience = look(snapshot, resource, wanted.facts, current, rollout, wanted.placement)
    keep = replace(
        keep,
        rollout=rollout.model_copy(
            update={"attempts": rollback.still_counting(patience.attempts, wanted.tried)}
        ),
        requeue_after=_sooner(wait, patience.wait),
    )
    if failed is not None and not wanted.may_learn(faults):
        return _given_up(wanted, keep, patience, failed)
    given_up = rollback.failed_before(rollout, wanted.tried)
    if given_up is not None:
        return replace(keep, faults=(rollback.rolled_back(given_up),))
    if wanted.may_learn(faults):
        return _learn(wanted, keep, patience, faults)
    if current.spec != wanted.spec or current.placement != wanted.placement or patience.leave:
        return _decide(wanted, keep, patience)
    if wanted.refreshes:
        return _decide(wanted, keep, patience)
    if recovered(snapshot, resource, current, patience):
        return _decide(wanted, keep, patience, anew=True)
    if current.site != wanted.site and any(fault.of_site for fault in faults):
        return _decide(wanted, keep, patience)
    return _upgrade(wanted, keep, patience, serving=any(map(is_ready, pods))) if wanted.newer else keep


def _upgrade(wanted: Wanted, keep: Target, patience: Patience, *, serving: bool) -> Target:
    """Take the configuration's image and bundle, in turn. What serves nobody needs no turn, and might never give it back."""
    if serving and not wanted.snapshot.may_upgrade:
        return replace(keep, awaits_turn=True, requeue_after=_sooner(keep.requeue_after, TURN))
    upgraded = _decide(wanted, keep, patience)
    return replace(upgraded, upgrading=serving and upgraded.revision is not keep.revision)


def _given_up(wanted: Wanted, keep: Target, patience: Patience, failed: Fault) -> Target:
    """What is asked for meanwhile, where that is another revision; else the last that served."""
    history = wanted.history
    assert history.rollout is not None  # noqa: S101 - only what is in use can fail
    if history.rollout.tried != wanted.tried:
        other = _decide(wanted, keep, patience)
        if other.revision is not None and other.revision.name != history.rollout.revision:
            return other
    return Target(history.fallback, rollback.went_back(history, failed, wanted.snapshot.now))


def _learn(wanted: Wanted, keep: Target, patience: Patience, faults: Sequence[Fault]) -> Target:
    """The same revision with more memory."""
    assert keep.revision is not None  # noqa: S101 - only what runs can be killed
    assert keep.rollout is not None  # noqa: S101
    lesson = rollback.lesson(keep.revision, keep.rollout, faults, wanted.snapshot.now)
    return _decide(wanted, keep, patience, lesson=lesson)


def _decide(
    wanted: Wanted,
    keep: Target | None = None,
    patience: Patience | None = None,
    *,
    anew: bool = False,
    lesson: Attempt | None = None,
) -> Target:
    """Place, and make the revision.

    Parameters
    ----------
    keep
        What stays in use where nothing can be decided now.
    anew
        Whether the class in use has no claim to stay.
    """
    keep = keep or Target()
    resource, current = wanted.resource, keep.revision
    problem = refused(resource, wanted.settings)
    if problem is not None:
        return replace(keep, faults=(problem,))
    same = current is not None and current.placement == wanted.placement and not anew
    placement = place(
        wanted.snapshot,
        resource,
        wanted.facts,
        previous=current.hardware_class.name if current is not None and same else None,
        decided=wanted.decided,
        barred={} if patience is None else patience.barred,
    )
    if current is not None and _stays(placement, current) and same:
        placement = replace(placement, reason=current.reason, rejected=current.rejected)
        if _chose_as(placement, current, wanted):
            placement = replace(placement, format_reason=current.format_reason)
    if anew and current is not None and _stays(placement, current):
        return keep
    if placement.pending:
        return replace(keep, placement=placement)
    if placement.selected is None:
        return replace(keep, placement=placement, faults=(_nowhere(placement, resource),))
    revision = _made(wanted, keep, placement, placement.selected, lesson)
    return replace(
        keep, revision=revision, placement=placement, rollout=_rollout(wanted, keep, revision, lesson)
    )


def _stays(placement: Placement, current: Revision) -> bool:
    selected = placement.selected
    return selected is not None and selected.hardware_class.name == current.hardware_class.name


def _chose_as(placement: Placement, current: Revision, wanted: Wanted) -> bool:
    """Whether its number format was chosen by what is known of it still: then the words for that stand too."""
    key = current.artifact.key
    same = placement.selected is not None and placement.selected.artifact.key == key
    return same and wanted.facts.get(key) == current.facts.get(key)


def _made(
    wanted: Wanted, keep: Target, placement: Placement, selected: Candidate, lesson: Attempt | None
) -> Revision:
    resource, history, current = wanted.resource, wanted.history, keep.revision
    chosen, image = selected.hardware_class, wanted.image(selected.hardware_class)
    times = rollback.lessons(history.rollout, wanted.spec) + (lesson is not None)
    if lesson is not None and current is not None and _stays(placement, current):
        # The same revision with more memory takes nothing new from the configuration.
        chosen, image = current.hardware_class, current.image
    fitted = placement.fit
    projector = projector_of(resource, selected.artifact)
    bare = Revision(
        hardware_class=chosen,
        artifact=pinned(selected.artifact, wanted.facts),
        adapters=tuple(pinned(each, wanted.facts) for each in adapters_of(resource)),
        projector=None if projector is None else pinned(projector, wanted.facts),
        image=image,
        context_length=None if fitted is None else fitted.estimate.context_length,
        memory=rollback.taught(wanted.memory(placement), times, wanted.available(chosen)),
        reason=placement.reason,
        rejected=placement.rejected,
        format_reason=placement.format_reason,
        facts=dict(wanted.facts),
        spec=wanted.spec,
        placement=wanted.placement,
        site=wanted.site,
        template={},
    )
    alike = next((each for each in history.newest if each.makes_pods_of(bare)), None)
    if alike is None:
        template = pod_template(resource, wanted.settings, bare, key_owned=_key_owned(resource, current))
        revision = bare.model_copy(update={"template": labelled(template)})
    else:
        why = {name: getattr(bare, name) for name in ("reason", "rejected", "format_reason", "placement")}
        revision = alike.model_copy(update=why)
    named = revision.named(resource.name, history.next_number)
    return history.known.get(named.name, named)


def _rollout(wanted: Wanted, keep: Target, revision: Revision, lesson: Attempt | None) -> Rollout:
    """A new rollout, with what has served before to go back to; the same one where the revision is."""
    if keep.rollout is not None and keep.revision is not None and keep.revision.name == revision.name:
        return keep.rollout
    attempts = () if keep.rollout is None else keep.rollout.attempts
    return Rollout(
        revision=revision.name,
        since=wanted.snapshot.now.replace(microsecond=0),
        tried=wanted.tried,
        fallback=_served_last(wanted),
        attempts=tuple(
            each for each in (*attempts, *([lesson] if lesson is not None else [])) if _counts(each, wanted)
        ),
    )


def _served_last(wanted: Wanted) -> str | None:
    """By what the Deployment remembers; where somebody has deleted it, by what the status says."""
    history = wanted.history
    if history.current is None or history.rollout is None:
        said = wanted.resource.status.revisions or ()
        names = [each.name for each in said if each.state == rollback.SERVING]
        return next((name for name in names if name in history.known), None)
    return history.current.name if wanted.served else history.rollout.fallback


def _counts(attempt: Attempt, wanted: Wanted) -> bool:
    """Attempts at other specs are history."""
    return attempt.tried in {wanted.spec, wanted.placement, wanted.tried}


def _key_owned(resource: SLMDeployment, current: Revision | None) -> bool:
    """Whether the key Secret must show whose it is: not where an earlier version made the one that is mounted."""
    if current is None:
        return True
    name = key_secret_name(resource.name)
    volumes = current.template.get("spec", {}).get("volumes") or ()
    return all(volume.get("secret", {}).get("secretName") != name for volume in volumes)


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _nowhere(placement: Placement, resource: SLMDeployment) -> Fault:
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
    if Cause.MISMATCH in causes:
        return Fault(
            "AdapterMismatch",
            placement.reason,
            "name a model in spec.model.source, and LoRA adapters that were made for it in spec.model.adapters",
            "ModelReady",
            stalled=True,
        )
    if Cause.PROJECTOR_MISMATCH in causes:
        return Fault(
            "ProjectorMismatch",
            placement.reason,
            "name a model in spec.model.source, and in spec.model.projector the projector that was made for it, with a "
            "runtime image of this version; or leave spec.model.projector out: the model reads text then",
            "ModelReady",
            stalled=True,
        )
    if Cause.NO_ENGINE in causes:
        return Fault(
            "NoEngine",
            placement.reason,
            "leave out spec.runtime.engine and what the engine hasn't, or name the model in another format, for a class in "
            "spec.model.variants",
            "Placed",
            stalled=True,
        )
    too_short = [each.longest_context for each in placement.rejected if each.longest_context is not None]
    if too_short:
        return Fault(
            "ContextTooLong",
            placement.reason,
            f"set spec.runtime.contextLength to {max(too_short)} or less, or leave it out",
            "MemoryFits",
            stalled=True,
        )
    if Cause.NO_MEMORY in causes:
        wish = "" if resource.spec.runtime.context_length is None else " contextLength,"
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
