"""What became of canaries, over all pods and over every change of what answers."""

from collections.abc import Iterator

from slm_contract.report import CanaryReport
from slm_operator.crd.observability import Canary
from slm_operator.crd.status import CanaryAnswer, CanaryStatus
from slm_operator.model.source import file_name
from slm_operator.pod.config import canary_config
from slm_operator.revision.revision import Revision
from slm_operator.status.view import View


def canaries(view: View) -> tuple[CanaryStatus, ...]:
    """Of those that the spec has and that were asked; what a pod's silence leaves open stays as it was."""
    found = (_canary(view, each) for each in view.resource.spec.observability.canary)
    return tuple(each for each in found if each is not None)


def _canary(view: View, canary: Canary) -> CanaryStatus | None:
    key = canary_config(canary).key
    kept = view.resource.status.canaries or ()
    before = next((each for each in kept if (each.name, each.key) == (canary.name, key)), None)
    told = list(_told(view, canary.name, key))
    answering = view.history.current
    if not told or answering is None:
        return before
    first = before.first if before is not None else _answer(answering, told[0])
    others = [each for each in told if each.digest != first.digest]
    failing = others if canary.expect.same_as_first else [each for each in told if not each.passed]
    telling = next(iter(failing or others), None)
    return CanaryStatus(
        name=canary.name,
        key=key,
        passed=not failing,
        first=first,
        last=None if telling is None else _answer(answering, telling),
    )


def _told(view: View, name: str, key: str) -> Iterator[CanaryReport]:
    for report in view.current_reports:
        for each in report.canaries or ():
            if (each.name, each.key) == (name, key):
                yield each


def _answer(revision: Revision, told: CanaryReport) -> CanaryAnswer:
    return CanaryAnswer(
        text=told.answer,
        digest=told.digest,
        model=file_name(revision.artifact.source)[:1024],
        hardware=revision.hardware_class.name,
        image=revision.image[:512],
    )


def changed(status: CanaryStatus) -> str:
    """Of a failing canary: what it answered, what it had answered first, and what of that which answers is another."""
    last = status.last or status.first
    words = f"{status.name} answers {last.text[:120]!r}"
    if last.digest == status.first.digest:
        return words
    words += f", at first {status.first.text[:120]!r}"
    news = [
        f"{was} then, {now} now"
        for was, now in (
            (status.first.model, last.model),
            (status.first.hardware, last.hardware),
            (status.first.image, last.image),
        )
        if was != now
    ]
    return f"{words} ({'; '.join(news)})" if news else words
