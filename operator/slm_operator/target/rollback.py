"""What a revision has to show, and what follows where it doesn't: the last that served is back, or it gets more memory."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from slm_contract.report import FailureReason
from slm_operator.crd.quantities import MIB, human_bytes, memory_quantity, parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.faults import Fault
from slm_operator.observed.pods import is_ready
from slm_operator.pod.budget import rollout_seconds
from slm_operator.revision.history import History
from slm_operator.revision.revision import FittedMemory, Revision
from slm_operator.revision.rollout import Attempt, Ended, Rollout
from slm_operator.snapshot import Document

CRASHES: Final = 3
"""Ends of a container after which waiting longer shows nothing new."""
LESSONS: Final = 3
"""How often an out-of-memory kill raises the memory of what is tried."""
RAISE: Final = 1.25
SERVING: Final = "Serving"
"""State of a revision in `status.revisions` that has served."""


def has_served(resource: SLMDeployment, history: History, pods: Iterable[Document]) -> bool:
    """Whether the current revision has made a token for clients: then what fails later isn't the revision's."""
    current = history.current
    if current is None:
        return False
    if history.rollout is not None and history.rollout.fallback == current.name:
        return True
    return said_to_serve(resource, current.name) or any(is_ready(pod) for pod in pods)


def said_to_serve(resource: SLMDeployment, revision: str) -> bool:
    """Whether status remembers that the revision of this name has served."""
    return any(each.name == revision and each.state == SERVING for each in resource.status.revisions or ())


def way_back(
    resource: SLMDeployment, history: History, revision: Revision | None, rollout: Rollout | None
) -> Revision | None:
    """What may be gone back to from a revision, as long as that hasn't served."""
    if revision is None or rollout is None or said_to_serve(resource, revision.name):
        return None
    return history.known.get(rollout.fallback or "")


def resumed(history: History, deployment: Document | None, resource: SLMDeployment, now: datetime) -> History:
    """The history with a rollout that begins now, where pods are asked for again: time without them isn't its time."""
    without = deployment is not None and deployment["spec"].get("replicas") == 0
    if history.rollout is None or not without or resource.replicas == 0:
        return history
    since = now.replace(microsecond=0)
    return replace(history, rollout=history.rollout.model_copy(update={"since": since}))


def failure(
    resource: SLMDeployment, history: History, faults: Sequence[Fault], now: datetime
) -> tuple[Fault | None, float | None]:
    """Why the current revision, which hasn't served, is given up; and else the seconds until its time is over."""
    rollout, current = history.rollout, history.current
    if rollout is None or current is None or history.fallback is None or resource.replicas == 0:
        return None, None
    for fault in faults:
        if fault.stalled or fault.restarts >= CRASHES:
            return fault, None
    budget = timedelta(seconds=rollout_seconds(resource, current.own_facts))
    left = rollout.since + budget - now
    if left > timedelta(0):
        return None, left.total_seconds()
    return next(iter(faults), _silent(budget)), None


def _silent(budget: timedelta) -> Fault:
    return Fault(
        reason="NoFirstToken",
        message=f"no pod made a first token within {budget.total_seconds():.0f} s",
        remedy="look at the pods' events and logs, and correct the spec",
    )


def went_back(history: History, failed: Fault, now: datetime) -> Rollout:
    """The rollout that takes the fallback up again, and remembers what failed."""
    assert history.rollout is not None  # noqa: S101 - `failure` has looked
    assert history.current is not None  # noqa: S101
    assert history.fallback is not None  # noqa: S101
    attempt = Attempt(
        hardware_class=history.current.hardware_class.name,
        artifact=history.current.artifact.source,
        tried=history.rollout.tried,
        revision=history.current.name,
        since=history.rollout.since,
        until=now.replace(microsecond=0),
        cause=failed.reason,
        message=failed.message[:1024],
    )
    return Rollout(
        revision=history.fallback.name,
        since=now.replace(microsecond=0),
        fallback=history.fallback.name,
        attempts=(*still_counting(history.rollout.attempts, ""), attempt),
    )


def failed_before(rollout: Rollout | None, tried: str) -> Attempt | None:
    """The attempt at just these inputs that was given up."""
    attempts = () if rollout is None else rollout.attempts
    return next((each for each in attempts if _is_failure(each) and each.tried == tried), None)


def rolled_back(attempt: Attempt) -> Fault:
    """What status says while the last revision that served goes on."""
    return Fault(
        reason=attempt.cause,
        message=f"revision {attempt.revision} was given up, the one before it serves: {attempt.message}",
        remedy="correct the spec: what failed isn't tried again before it changes",
        stalled=True,
        blocks=False,
        time=attempt.until,
    )


def short_of_memory(faults: Iterable[Fault], current: Revision) -> bool:
    """Whether pods were killed for memory that we had fitted."""
    return current.memory.weights is not None and any(
        fault.reason == FailureReason.OUT_OF_MEMORY and fault.pod is not None for fault in faults
    )


def lessons(rollout: Rollout | None, spec: str) -> int:
    """How often this spec has shown that it needs more memory than was computed."""
    attempts = () if rollout is None else rollout.attempts
    return sum(each.cause == Ended.TOO_LITTLE_MEMORY and each.tried == spec for each in attempts)


def lesson(current: Revision, rollout: Rollout, faults: Iterable[Fault], now: datetime) -> Attempt:
    words = next((each.message for each in faults if each.reason == FailureReason.OUT_OF_MEMORY), "")
    return Attempt(
        hardware_class=current.hardware_class.name,
        artifact=current.artifact.source,
        tried=current.spec,
        revision=current.name,
        since=rollout.since,
        until=now.replace(microsecond=0),
        cause=Ended.TOO_LITTLE_MEMORY,
        message=words[:1024],
    )


def taught(memory: FittedMemory, times: int, available: int | None) -> FittedMemory:
    """More memory than computed, as far as a node has it, and why."""
    computed = int(parse_quantity(memory.request))
    raised = -(-int(computed * RAISE**times) // MIB) * MIB
    if available is not None:
        raised = min(raised, max(available, computed))
    if times == 0 or raised == computed:
        return memory
    words = f"{memory.explanation}; raised to {human_bytes(raised)}, for it was killed for want of memory"
    return memory.model_copy(update={"request": memory_quantity(raised), "explanation": words})


def _is_failure(attempt: Attempt) -> bool:
    return attempt.cause not in set(Ended) and attempt.until is not None


def still_counting(attempts: Iterable[Attempt], tried: str) -> tuple[Attempt, ...]:
    """What stays remembered: a failure of other inputs is history, and they may be tried again when they come back."""
    return tuple(each for each in attempts if not _is_failure(each) or each.tried == tried)
