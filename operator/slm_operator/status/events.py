"""What happened, between two statuses: one Event for each decision and outcome, none for the steps on the way."""

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from slm_operator.crd.quantities import human_bytes
from slm_operator.crd.status import Condition, RevisionStatus, Status
from slm_operator.revision.rollout import Ended

LIMIT: Final = 1024
"""Characters of a message: the most that the API server takes."""

_FAULTS: Final = {
    "Ready": "False",
    "Refused": "True",
    "Contended": "True",
    "MonitoringReady": "False",
    "MemoryFits": "False",
    "Accelerated": "False",
    "Drifting": "True",
}
"""Conditions that tell a fault, and what they are while there is one."""
_NO_FAULT: Final = frozenset({"NotRequested"})
_NO_ACT_NEEDED: Final = frozenset({"RewrittenAtAdmission"})


class Event(NamedTuple):
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def events(before: Status, after: Status) -> tuple[Event, ...]:
    """Decisions first, then outcomes, then faults."""
    found: dict[str, Event] = {}
    for each in (*_decisions(before, after), *_outcomes(before, after), *_faults(before, after)):
        found.setdefault(each.reason, each)
    return tuple(found.values())


def _decisions(before: Status, after: Status) -> Iterator[Event]:
    was = before.placement.selected if before.placement is not None else None
    placed = after.placement
    if placed is not None and placed.selected is not None and placed.selected != was:
        yield _event("Normal", _placing(before, after), f"on {placed.selected}: {placed.reason or ''}")
        return
    made = _made(before, after)
    if made is None or before.observed_generation != after.observed_generation:
        return
    if _lessons(after) > _lessons(before):
        memory = after.memory.explanation if after.memory is not None else None
        yield _event("Warning", "MemoryRaised", memory or "it was killed for want of memory")
    else:
        words = f"to {_named(made)}, with image {made.image}: the operator's configuration has changed"
        yield _event("Normal", "UpgradeStarted", words)


def _placing(before: Status, after: Status) -> str:
    """Whether a class was taken for the spec's sake, for want of another, or because a better one can be had again."""
    was, now = before.placement, after.placement
    assert now is not None  # noqa: S101 - it was asked before
    if was is None or was.selected is None or before.observed_generation != after.observed_generation:
        return "Placed"
    if now.selected in {each.hardware for each in was.rejected}:
        return "Recovered"
    return "FellBack" if was.selected in {each.hardware for each in now.rejected} else "Placed"


def _outcomes(before: Status, after: Status) -> Iterator[Event]:
    states = {each.name: each.state for each in before.revisions or ()}
    turned = [each for each in after.revisions or () if states.get(each.name) != each.state]
    rolled_back = [each for each in turned if each.state == "RolledBack"]
    for each in rolled_back:
        words = f"{_named(each)} was given up for the one that served before: {each.message or each.reason}"
        yield _event("Warning", "RolledBack", words)
    yield from _removed(before, after)
    ready, was = _condition(after, "Ready"), _condition(before, "Ready")
    serving = [each for each in turned if each.state == "Serving"]
    if serving and not rolled_back and not _known_to_serve(before):
        yield _event("Normal", "RevisionReady", f"{_named(serving[0])} serves")
    elif ready is not None and was is not None and (was.status, ready.status) == ("False", "True"):
        yield _event("Normal", ready.reason, ready.message)


def _removed(before: Status, after: Status) -> Iterator[Event]:
    cache, was = after.cache, before.cache
    if cache is None or cache.removed is None or (was is not None and was.removed == cache.removed):
        return
    count, size = cache.removed.models, human_bytes(cache.removed.bytes)
    models = "1 model" if count == 1 else f"{count} models"
    words = f"{models} ({size}) that nothing uses any more left the claim {cache.claim}"
    yield _event("Normal", "UnusedModelsRemoved", words)


def _known_to_serve(before: Status) -> bool:
    """By an operator of a version that told no revisions."""
    ready = _condition(before, "Ready")
    return before.revisions is None and ready is not None and ready.status == "True"


def _faults(before: Status, after: Status) -> Iterator[Event]:
    known = {each.reason for each in _telling(before)}
    for each in _telling(after):
        if each.reason not in known:
            kind: Literal["Normal", "Warning"] = "Normal" if each.reason in _NO_ACT_NEEDED else "Warning"
            yield _event(kind, each.reason, each.message)


def _telling(status: Status) -> Iterable[Condition]:
    """Conditions that tell a fault."""
    return (
        each
        for each in status.conditions
        if _FAULTS.get(each.type) == each.status and each.reason not in _NO_FAULT
    )


def _made(before: Status, after: Status) -> RevisionStatus | None:
    """The revision that is newly rolled out; one that was known before has only come back."""
    known = {each.name for each in before.revisions or ()}
    newest = next(iter(after.revisions or ()), None)
    return newest if known and newest is not None and newest.name not in known else None


def _lessons(status: Status) -> int:
    return sum(each.cause == Ended.TOO_LITTLE_MEMORY for each in status.attempts or ())


def _named(revision: RevisionStatus) -> str:
    return f"revision {revision.revision} ({revision.model} on {revision.hardware})"


def _condition(status: Status, kind: str) -> Condition | None:
    return next((each for each in status.conditions if each.type == kind), None)


def _event(kind: Literal["Normal", "Warning"], reason: str, message: str) -> Event:
    return Event(kind, reason, message[:LIMIT])
