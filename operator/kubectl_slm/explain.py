"""A status → one sentence and a remedy. Pure: it says what the operator has found, in the order in which it matters."""

from dataclasses import dataclass
from typing import Final, Literal

from kubectl_slm import read
from kubectl_slm.output import size

State = Literal["good", "waiting", "broken"]

_SERVES: Final = frozenset({"Serving", "Suspended", "ScaledToZero", "RolledBack"})
_NEVERTHELESS: Final = (
    "Stalled",
    "Placed",
    "MemoryFits",
    "Accelerated",
    "MonitoringReady",
    "SourceDrifted",
    "Contended",
    "Refused",
)
"""Conditions that tell what is wrong beside a model that serves."""
_TRUE_IS_WRONG: Final = frozenset({"Stalled", "SourceDrifted", "Contended", "Refused"})
_AS_ASKED: Final = frozenset({"NotRequested"})
_REMEDIES: Final = {
    "LessThanEstimated": "raise spec.resources, if the pod is ended for memory",
    "Degraded": "look at its node's drivers and device plugin; `spec.hardware.onDegraded: Fail` keeps it from serving",
    "RolledBack": "correct the spec; what failed isn't tried again before it changes",
    "KindMissing": "install the Prometheus Operator's CRDs, or leave observability.serviceMonitor out",
}
"""Of conditions whose message has none."""


@dataclass(frozen=True)
class Explanation:
    state: State
    reason: str
    """One word, as in docs/troubleshooting.md."""
    sentence: str
    remedy: str = ""
    """Empty where there is nothing to do."""
    more: tuple[str, ...] = ()
    """What else is worth knowing: a sentence each."""


def explain(document: read.Document) -> Explanation:
    """Why it is as it is."""
    told = read.conditions(document)
    ready = told.get("Ready")
    if ready is None:
        return Explanation(
            "broken",
            "Unseen",
            "no operator has looked at it yet",
            "look whether the operator runs: `kubectl get pods -A -l app.kubernetes.io/component=operator`",
        )
    beside = tuple(_beside(document, ready.reason))
    if not read.seen(document):
        beside = (
            "the status is about an earlier spec: the operator hasn't looked at the last change yet",
            *beside,
        )
    if ready.reason == "RolledBack":
        stalled = told.get("Stalled")
        sentence, remedy = _split(document, (stalled or ready).message)
        kept = "the revision before serves on: "
        return Explanation("broken", "RolledBack", kept + sentence, remedy or _REMEDIES["RolledBack"], beside)
    if ready.reason in _SERVES:
        more = (_serves(document), *beside)
        return Explanation("good", ready.reason, ready.message, more=tuple(filter(None, more)))
    if ready.status == "Unknown":
        progress = _progress(document)
        return Explanation("waiting", ready.reason, ready.message, more=(*progress, *beside))
    sentence, remedy = _split(document, ready.message)
    remedy = remedy or _REMEDIES.get(ready.reason, "")
    details = [each for each in _details(document) if each not in sentence]
    return Explanation("broken", ready.reason, sentence, remedy, (*details, *beside))


def _split(document: read.Document, message: str) -> tuple[str, str]:
    """A fault's sentence and its remedy, which a condition has in one text."""
    remedy = read.text(document, "lastFailure", "remedy")
    if remedy and message.endswith(f"; {remedy}"):
        return message.removesuffix(f"; {remedy}"), remedy
    sentence, separator, rest = message.rpartition("; ")
    return (sentence, rest) if separator else (message, "")


def _beside(document: read.Document, ready: str) -> list[str]:
    """What else is wrong, which isn't what Ready tells already."""
    found = []
    for kind, condition in read.conditions(document).items():
        wrong = condition.status == ("True" if kind in _TRUE_IS_WRONG else "False")
        if kind in _NEVERTHELESS and wrong and condition.reason not in {ready, *_AS_ASKED}:
            known = _REMEDIES.get(condition.reason)
            remedy = f"; {known}" if known and known not in condition.message else ""
            found.append(f"{condition.reason}: {condition.message}{remedy}")
    # The same fault may stand in Stalled and in the condition of its own.
    return [each for number, each in enumerate(found) if each not in found[:number] and ready != "RolledBack"]


def _serves(document: read.Document) -> str:
    speed = read.part(document, "performance", "tokensPerSecond")
    device = read.text(document, "acceleration", "device")
    told = [f"on {device}" if device else "", f"{speed:.0f} tokens/s at its start" if speed else ""]
    return ", ".join(filter(None, told))


def _progress(document: read.Document) -> list[str]:
    download = read.part(document, "download")
    if not download or download.get("percent") is None:
        return []
    speed, left = download.get("bytesPerSecond"), download.get("etaSeconds")
    words = [f"{download['percent']} %"]
    words += [f"{size(speed)}/s"] if speed else []
    words += [] if left is None else [f"{left} s left"]
    return [", ".join(words)]


def _details(document: read.Document) -> list[str]:
    failure = read.part(document, "lastFailure") or {}
    found = []
    if failure.get("pod"):
        code = "" if failure.get("exitCode") is None else f", exit code {failure['exitCode']}"
        found.append(
            f"seen in pod {failure['pod']}{code}: `kubectl slm logs {read.name_of(document)}` has its words"
        )
    if read.part(document, "placement", "selected") is None:
        rejected = read.part(document, "placement", "rejected") or ()
        found += [f"{each['hardware']}: {each['reason']}" for each in rejected]
    tried = [each for each in read.part(document, "attempts") or () if each.get("message")]
    return found + [f"tried on {each['hardware']}: {each['message']}" for each in tried]
