"""How long a class may keep its pods waiting for a node, and when one that was given up may be tried again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import human_seconds, parse_duration
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import Recover
from slm_operator.observed.pods import any_scheduled, unscheduled
from slm_operator.placement.choose import place
from slm_operator.placement.rejection import Cause, Rejected
from slm_operator.revision.revision import Revision
from slm_operator.revision.rollout import Attempt, Ended, Rollout
from slm_operator.snapshot import Snapshot

LONGEST_COOL_DOWN: Final = timedelta(days=1)
"""The time to the next try of a class doubles with each that found no node, up to this or what the spec asks for."""
REMEMBERED: Final = 8
"""Tries of a class in vain that are remembered: an annotation holds 256 KiB, and doubling needs no more."""


@dataclass(frozen=True)
class Patience:
    """Where the scheduler's patience stands."""

    attempts: tuple[Attempt, ...]
    """To remember from now on."""
    barred: Mapping[str, Rejected]
    """By class: given up, with the scheduler's words."""
    leave: bool = False
    """Whether the class in use is given up now."""
    wait: float | None = None
    """Seconds until this would be answered otherwise."""


def look(
    snapshot: Snapshot,
    resource: SLMDeployment,
    facts: Mapping[str, ModelFacts],
    current: Revision,
    rollout: Rollout,
    tried: str,
) -> Patience:
    """Whether the class in use has to be left: none of its pods was scheduled for `fallback.after`, and another would do.

    Parameters
    ----------
    tried
        Digest of the parts of the spec that a placement is decided from: attempts at others are forgotten.
    """
    kept = tuple(each for each in rollout.attempts if each.cause != Ended.UNSCHEDULED or each.tried == tried)
    now, name = snapshot.now, current.hardware_class.name
    barred, until = _barred(kept, resource, now)
    words = unscheduled(snapshot.pods, name)
    ours = next((each for each in kept if _is_open(each) and each.hardware_class == name), None)
    others = tuple(each for each in kept if each is not ours)
    after = parse_duration(resource.spec.hardware.fallback.after)
    if words is None or current.placement != tried:
        settled = resource.replicas == 0 or any_scheduled(snapshot.pods, name)
        return Patience(others if settled else kept, barred, wait=until)
    given_up = {**barred, name: _refused(name, after, words)}
    if place(snapshot, resource, facts, barred=given_up).selected is None:
        return Patience(others, barred, wait=until)
    if name in barred:
        # Given up before, when the header of the next one's artifact had yet to be read.
        return Patience(others, barred, leave=True, wait=until)
    opened = ours or Attempt(
        hardware_class=name,
        artifact=current.artifact.source,
        tried=tried,
        revision=current.name,
        since=now.replace(microsecond=0),
        cause=Ended.UNSCHEDULED,
    )
    left = timedelta(seconds=after) - (now - opened.since)
    if left > timedelta(0):
        waits = [left.total_seconds(), *([until] if until is not None else [])]
        return Patience((*others, opened), barred, wait=min(waits))
    closed = opened.model_copy(update={"until": now.replace(microsecond=0), "message": words[:512]})
    return Patience((*_newest(others, name), closed), given_up, leave=True)


def recovered(snapshot: Snapshot, resource: SLMDeployment, current: Revision, patience: Patience) -> bool:
    """Whether a preferred class that was passed over may be had now, and the spec wants to come back for it."""
    recover = resource.spec.hardware.fallback.recover
    if recover is Recover.NEVER or snapshot.nodes is None:
        return False
    passed = {each.hardware: each.cause for each in current.rejected}
    again = {Cause.NO_NODES} if recover is Recover.WHEN_NODES_APPEAR else {Cause.NO_NODES, Cause.UNSCHEDULED}
    if recover is Recover.WHEN_IDLE and not _idle(snapshot, resource):
        return False
    return any(
        passed.get(each.name) in again
        and each.name not in patience.barred
        and snapshot.nodes.offer(each, resource.spec.hardware).nodes > 0
        for each in snapshot.settings.classes
    )


def _idle(snapshot: Snapshot, resource: SLMDeployment) -> bool:
    """Nobody would notice pods that are made anew: there are none, or their model has left memory for want of requests."""
    return resource.replicas == 0 or (
        bool(snapshot.reports) and all(each.unloaded for each in snapshot.reports.values())
    )


def _barred(
    attempts: Iterable[Attempt], resource: SLMDeployment, now: datetime
) -> tuple[dict[str, Rejected], float | None]:
    """Classes that were given up, and seconds until the first of them may be tried again."""
    fallback = resource.spec.hardware.fallback
    cool_down = timedelta(seconds=parse_duration(fallback.cool_down))
    again = fallback.recover in {Recover.ALWAYS, Recover.WHEN_IDLE}
    barred: dict[str, Rejected] = {}
    waits: list[float] = []
    times: dict[str, int] = {}
    for each in attempts:
        if not _in_vain(each) or each.until is None:
            continue
        times[each.hardware_class] = times.get(each.hardware_class, 0) + 1
        longest = max(cool_down, LONGEST_COOL_DOWN)
        rest = min(cool_down * 2 ** (times[each.hardware_class] - 1), longest)
        over = (each.until + rest - now).total_seconds()
        if again and over <= 0:
            barred.pop(each.hardware_class, None)
            continue
        if again:
            waits.append(over)
        after = parse_duration(fallback.after)
        barred[each.hardware_class] = _refused(each.hardware_class, after, each.message)
    return barred, min(waits, default=None)


def _newest(attempts: tuple[Attempt, ...], hardware_class: str) -> tuple[Attempt, ...]:
    """Without the oldest tries of the class, so that one more can be remembered."""
    tries = [each for each in attempts if _in_vain(each) and each.hardware_class == hardware_class]
    old = tries[: -(REMEMBERED - 1)]
    return tuple(each for each in attempts if each not in old)


def _in_vain(attempt: Attempt) -> bool:
    return attempt.cause == Ended.UNSCHEDULED and attempt.until is not None


def _is_open(attempt: Attempt) -> bool:
    return attempt.cause == Ended.UNSCHEDULED and attempt.until is None


def _refused(hardware_class: str, after: float, words: str) -> Rejected:
    return Rejected(
        hardware=hardware_class,
        cause=Cause.UNSCHEDULED,
        reason=f"no pod was scheduled for {human_seconds(after)} ({words[:512]})",
    )
