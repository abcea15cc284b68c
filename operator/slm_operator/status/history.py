"""What was tried and what became of it, as the status tells it."""

from slm_operator.crd.status import AttemptStatus, RevisionState, RevisionStatus
from slm_operator.model.source import file_name
from slm_operator.observed.pods import is_ready
from slm_operator.revision.history import LIMIT
from slm_operator.revision.revision import Revision
from slm_operator.revision.rollout import Attempt, Ended
from slm_operator.status.view import View

ATTEMPTS = 8


def revisions(view: View) -> tuple[RevisionStatus, ...]:
    """Newest first."""
    kept = view.history.kept(view.revision, view.history.current, view.history.fallback)
    newest = sorted(kept, key=lambda each: (-each.number, each.name))
    return tuple(_revision(view, each) for each in newest[:LIMIT])


def attempts(view: View) -> tuple[AttemptStatus, ...]:
    """Those at the present spec, oldest first."""
    tried = () if view.rollout is None else view.rollout.attempts
    return tuple(
        AttemptStatus(
            hardware=each.hardware_class,
            artifact=file_name(each.artifact)[:1024],
            since=each.since,
            until=each.until,
            cause=None if each.until is None else each.cause,
            message=each.message[:1024] or None,
        )
        for each in tried[-ATTEMPTS:]
    )


def _revision(view: View, revision: Revision) -> RevisionStatus:
    before = next((each for each in view.resource.status.revisions or () if each.name == revision.name), None)
    failed = None if view.rollout is None else _failure(view.rollout.attempts, revision)
    state = _state(view, revision, before, failed=failed is not None)
    if before is not None and before.state == state == "RolledBack" and failed is None:
        return before
    since = before.since if before is not None and before.state == state else view.now
    return RevisionStatus(
        name=revision.name,
        revision=revision.number,
        state=state,
        hardware=revision.hardware_class.name,
        model=file_name(revision.artifact.source)[:1024],
        image=revision.image[:512],
        since=since,
        reason=None if failed is None else failed.cause,
        message=None if failed is None else failed.message[:1024],
    )


def _state(view: View, revision: Revision, before: RevisionStatus | None, *, failed: bool) -> RevisionState:
    """What was given up stays so in the history, also when another spec has made its attempt forgotten."""
    if view.rollout is None or revision.name != view.rollout.revision:
        gone = failed or (before is not None and before.state == "RolledBack")
        return "RolledBack" if gone else "Superseded"
    served = before is not None and before.state == "Serving"
    return "Serving" if served or (view.rolled_out and view.available) or _any_ready(view) else "Pending"


def _any_ready(view: View) -> bool:
    """Whether one of several pods of the revision in use serves: remembered, since all of them together may never do.

    A single pod is all of them in a moment, and that would be a status more.
    """
    current = view.history.current
    in_use = current is not None and view.rollout is not None and current.name == view.rollout.revision
    return in_use and view.resource.replicas > 1 and any(is_ready(pod) for pod in view.pods)


def _failure(attempts: tuple[Attempt, ...], revision: Revision) -> Attempt | None:
    return next(
        (each for each in attempts if each.revision == revision.name and each.cause not in set(Ended)), None
    )
