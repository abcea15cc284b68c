"""Why a Job has no pod, or a pod no sandbox: read from the Events about it, in words that are equal where the cause is."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from slm_operator.crd.names import COPIES
from slm_operator.observed.pods import has_component, parse_time, waiting_since
from slm_operator.snapshot import Document

LIMIT: Final = 512
"""Characters of a clue."""
LONGEST: Final = 2048
"""Characters that are looked through: a webhook may refuse in as many words as it likes."""
STILL_TOLD: Final = timedelta(seconds=150)
"""Kubelet tries a volume at least every two minutes: a cause that wasn't told for longer is gone."""

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OVERCOME: Final = frozenset({"Scheduled", "SuccessfulCreate"})
"""What went wrong before one of these is history."""
_SUMMARY: Final = "Unable to attach or mount volumes"
"""What kubelet says of all volumes together, between what it says of each."""
_PREFIXES: Final = ("(combined from similar events): ", "Error creating: ")
_CHANGING: Final = (
    (re.compile(r'pods "[^"]*" '), "pods "),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(Z|[+-]\d\d:\d\d)"), "…"),
    # That of the volume or the SLMDeployment stays; a pod's is another after each try.
    (re.compile(r"(?<!pvc-)(?<!owner-)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "…"),
    (re.compile(r"\b[0-9a-f]{32,}\b"), "…"),
    (re.compile(r"(?<![\w.:\[\]])[\w.:\[\]]+:\d+->"), ""),
)
"""Names of pods, times, uids, ids of sandboxes, local ports: they differ from try to try."""


class _Warning(NamedTuple):
    order: tuple[int, datetime]
    text: str

    @property
    def time(self) -> datetime:
        return self.order[1]


def needs_clue(document: Document) -> bool:
    """Whether a Job of ours is without live pods, or a pod on a node without a sandbox: only Events say why."""
    if "deletionTimestamp" in document["metadata"]:
        return False
    if document["kind"] == "Pod":
        # Copies may be as many as nodes, and keep nobody from serving.
        return waiting_since(document) is not None and not has_component(document, COPIES)
    status = document.get("status", {})
    ended = {each.get("type") for each in status.get("conditions") or () if each.get("status") == "True"}
    return not status.get("active") and not status.get("succeeded") and not ended & {"Complete", "Failed"}


def clue(events: Iterable[Document], name: str, known: str | None) -> str | None:
    """What stands in the way of the object that these Events are about; None where they name nothing.

    Parameters
    ----------
    name
        Of the object.
    known
        What was read last: it stays while it is still told, since two causes are told by turns.
    """
    told = sorted(events, key=_order)
    overcome = [index for index, each in enumerate(told) if each.get("reason") in _OVERCOME]
    recent = told[overcome[-1] + 1 :] if overcome else told
    warnings = [
        _Warning(_order(each), steady(str(each.get("message") or each["reason"]), name)[:LIMIT])
        for each in recent
        if _is_cause(each)
    ]
    warnings = [each for each in warnings if not each.text.startswith(_SUMMARY)] or warnings
    if not warnings:
        return None
    newest = warnings[-1]
    still = {each.text for each in warnings if newest.time - each.time <= STILL_TOLD}
    return known if known in still else newest.text


def steady(words: str, name: str = "") -> str:
    """Words of an Event or a condition without what changes from try to try.

    Parameters
    ----------
    name
        Of the object; its pods have this and five letters.
    """
    words = words[:LONGEST]
    for prefix in _PREFIXES:
        words = words.removeprefix(prefix)
    for pattern, instead in _CHANGING:
        words = pattern.sub(instead, words)
    if name:
        words = re.sub(rf"\b{re.escape(name)}-[a-z0-9]{{5}}\b", name, words)
    return words


def _is_cause(event: Document) -> bool:
    """Not every warning is: policy engines warn of what they let pass."""
    reason = str(event.get("reason") or "")
    return event.get("type") == "Warning" and (reason.startswith("Failed") or reason == "NetworkNotReady")


def _order(event: Document) -> tuple[int, datetime]:
    """By revision, the one order that needs no clock, and by time where the server's aren't numbers."""
    metadata: Any = event["metadata"]
    version = str(metadata.get("resourceVersion", ""))
    times = (
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        metadata.get("creationTimestamp"),
    )
    return (int(version) if version.isdecimal() else 0), _time(next((each for each in times if each), ""))


def _time(text: str) -> datetime:
    """Anybody may write Events, and the API server takes years that Python doesn't know."""
    try:
        return parse_time(text)
    except ValueError:
        return _LONG_AGO
