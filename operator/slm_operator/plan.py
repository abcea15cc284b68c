"""Desired and observed → steps. What says the same already is left alone; what isn't ours is never touched."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from slm_operator.crd.names import INTENT_ANNOTATION, KIND
from slm_operator.digest import digest
from slm_operator.observed.pods import volumes_of
from slm_operator.ownership import Loss, leftover, lost, rewritten
from slm_operator.snapshot import Apply, ChildRef, Create, Delete, Document, Plan, Step, ref_of

_IMMUTABLE: Final = frozenset({"Job", "ControllerRevision"})
"""Another content is another object, by name: one that exists is as it was made."""
_FOR_DEPLOYMENT: Final = frozenset({"Job", "ControllerRevision"})
"""Of no use without the Deployment: what a Job reads is written down with it, and else would be read for ever."""


@dataclass(frozen=True)
class Contention:
    """Fields of a child that somebody else writes too."""

    ref: ChildRef
    losses: tuple[Loss, ...] = ()
    """Fields that another manager has taken."""
    rewritten: tuple[str, ...] = ()
    """Fields that are ours and hold another value: a webhook changes them whenever we write."""


def intent(document: Mapping[str, Any]) -> Document:
    """Put the document's digest on it: a field that is dropped from it later shows by it."""
    metadata = {
        **document["metadata"],
        "annotations": {**document["metadata"].get("annotations", {}), INTENT_ANNOTATION: digest(document)},
    }
    return {**document, "metadata": metadata}


def owned_by(document: Document, uid: str) -> bool:
    """Whether the SLMDeployment of this uid controls the object, not one of the same name before it."""
    controller = _controller(document)
    return controller is not None and controller.get("uid") == uid


def of_predecessor(document: Document, name: str, uid: str) -> bool:
    """Whether the object belonged to an SLMDeployment of this name that is gone: the garbage collector is on its way."""
    controller = _controller(document)
    return (
        controller is not None
        and (controller.get("kind"), controller.get("name")) == (KIND, name)
        and controller.get("uid") != uid
    )


def make_plan(
    desired: Iterable[Document],
    ours: Mapping[ChildRef, Document],
    *,
    taken: Collection[ChildRef],
    key: Document | None = None,
    spared: Collection[ChildRef] = (),
    yielding: Collection[ChildRef] = (),
) -> Plan:
    """The steps after which the desired objects are there, and nothing else of ours.

    Parameters
    ----------
    ours
        Children that this SLMDeployment controls.
    taken
        Names that somebody else's objects have: nothing is made that would mount one.
    key
        The key Secret, where it has to be made.
    spared
        What stays although nobody asks for it: something that runs still needs it.
    yielding
        What is left alone for a while, since another writer keeps changing it.
    """
    documents = [each for each in desired if ref_of(each) not in taken]
    steps: list[Step] = [] if key is None else [Create(key, once=True)]
    missing = frozenset(ref for each in documents if (ref := ref_of(each)) not in ours)
    revisions = frozenset(ref for ref in missing if ref.kind == "ControllerRevision")
    vain = any(ref.kind == "Deployment" for ref in taken)
    for each in documents:
        ref, mounted = ref_of(each), _mounted(each)
        if mounted & frozenset(taken) or (ref.kind in _FOR_DEPLOYMENT and vain):
            continue
        needs = mounted & missing | (revisions if ref.kind == "Deployment" else frozenset())
        if ref not in ours:
            steps.append(Create(intent(each), needs))
        elif ref not in yielding and not _is_going(ours[ref]) and not is_as_intended(each, ours[ref]):
            steps.append(_apply(intent(each), ours[ref], needs))
    wanted = {ref_of(each) for each in documents}
    steps += [
        Delete(
            api_version=str(document["apiVersion"]),
            ref=ref,
            uid=str(document["metadata"]["uid"]),
            resource_version=str(document["metadata"]["resourceVersion"]),
        )
        for ref, document in sorted(ours.items())
        if ref not in wanted and ref not in spared and not _is_going(document)
    ]
    return Plan(tuple(steps))


def is_as_intended(document: Document, live: Document) -> bool:
    """Whether applying the document would change nothing: it was what we applied last, and every field of it is still ours.

    Fields of others, and what the API server filled in, don't count; nor does a value that a webhook puts in place of ours,
    since it would do so again.
    """
    wanted = intent(document)
    if ref_of(document).kind in _IMMUTABLE:
        return True
    return _told(live) == _told(wanted) and not lost(wanted, live)


def contentions(desired: Iterable[Document], ours: Mapping[ChildRef, Document]) -> tuple[Contention, ...]:
    """Where others write what is ours. An intent of ours that isn't applied yet is no contention."""
    found = []
    for each in desired:
        live, wanted = ours.get(ref_of(each)), intent(each)
        if live is None or ref_of(each).kind in _IMMUTABLE or _told(live) != _told(wanted):
            continue
        losses = tuple(loss for loss in lost(wanted, live) if loss.manager is not None)
        changed = rewritten(wanted, live)
        if losses or changed:
            found.append(Contention(ref_of(each), losses, changed))
    return tuple(found)


def _mounted(document: Document) -> frozenset[ChildRef]:
    """What its pods mount: somebody else's object of the name isn't what was meant, and a pull would write into it."""
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    return frozenset(ChildRef(kind, name) for kind, names in volumes_of(pod).items() for name in names)


def _apply(wanted: Document, live: Document, needs: frozenset[ChildRef]) -> Apply:
    identity = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
    document = {**wanted, "metadata": {**wanted["metadata"], **identity}}
    return Apply(document, needs, consolidate=leftover(wanted, live))


def _told(document: Document) -> str | None:
    annotations: Mapping[str, str] = document["metadata"].get("annotations") or {}
    return annotations.get(INTENT_ANNOTATION)


def _is_going(document: Document) -> bool:
    return "deletionTimestamp" in document["metadata"]


def _controller(document: Document) -> Mapping[str, Any] | None:
    references: Iterable[Mapping[str, Any]] = document["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)
