"""Desired and observed → steps. What says the same already is left alone; what isn't ours is never touched."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from slm_operator.crd.names import COMPONENT_LABEL, INTENT_ANNOTATION, KIND, labels
from slm_operator.digest import digest
from slm_operator.observed.pods import volumes_of
from slm_operator.ownership import Differences, Loss, differences, leftover
from slm_operator.snapshot import Apply, ChildRef, Create, Delete, Document, Plan, Step, ref_of

_IMMUTABLE: Final = frozenset({"Job", "ControllerRevision"})
"""Another content is another object, by name: one that exists is as it was made."""
_FOR_DEPLOYMENT: Final = frozenset({"Job", "ControllerRevision"})
"""Of no use without the Deployment: what a Job reads is written down with it, and else would be read for ever."""


@dataclass(frozen=True)
class Child:
    """A child as it shall be, beside the live one."""

    wanted: Document
    """The intent, its digest on it."""
    live: Document | None
    """None where none is known that is ours."""

    @property
    def ref(self) -> ChildRef:
        return ref_of(self.wanted)

    @cached_property
    def told(self) -> bool:
        """Whether the live one is what we wrote last, for all that we know."""
        return self.live is not None and (
            self.ref.kind in _IMMUTABLE or _told(self.live) == _told(self.wanted)
        )

    @cached_property
    def differences(self) -> Differences:
        """Fields that others have taken or rewritten. An intent that isn't written yet differs by nobody's doing."""
        if self.live is None or not self.told or self.ref.kind in _IMMUTABLE:
            return Differences()
        return differences(self.wanted, self.live)

    @property
    def is_as_intended(self) -> bool:
        """Whether applying it would change nothing: it was what we applied last, and every field of it is still ours.

        Fields of others, and what the API server filled in, don't count; nor does a value that a webhook puts in place of
        ours, since it would do so again.
        """
        return self.told and not self.differences.lost

    @property
    def contested(self) -> tuple[Loss, ...]:
        """Fields that another manager has taken."""
        return tuple(loss for loss in self.differences.lost if loss.manager is not None)


def compare(desired: Iterable[Document], ours: Mapping[ChildRef, Document]) -> tuple[Child, ...]:
    """Put each document beside the live object of its name that is ours."""
    return tuple(Child(intent(each), ours.get(ref_of(each))) for each in desired)


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


def orphaned(document: Document, name: str) -> bool:
    """Whether an SLMDeployment of this name left the object behind (`kubectl delete --cascade=orphan`).

    It still isn't ours: whoever may write the object can make it look so. Giving it an owner is a person's decision.
    """
    has = document["metadata"].get("labels") or {}
    ours = labels(name)
    ours.pop(COMPONENT_LABEL)
    return _controller(document) is None and _told(document) is not None and ours.items() <= has.items()


def make_plan(
    children: Collection[Child],
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
    free = [each for each in children if each.ref not in taken]
    steps: list[Step] = []
    missing = frozenset(each.ref for each in free if each.live is None)
    first = frozenset(ref for ref in missing if ref.kind == "ControllerRevision")
    if key is not None:
        # Once pods are made that mount it, nobody asks for it again before they are stuck.
        first |= {ref_of(key)}
        steps.append(Create(key, once=True))
    vain = any(ref.kind == "Deployment" for ref in taken)
    for each in free:
        mounted = _mounted(each.wanted)
        if mounted & frozenset(taken) or (each.ref.kind in _FOR_DEPLOYMENT and vain):
            continue
        needs = mounted & missing | (first if each.ref.kind == "Deployment" else frozenset())
        if each.live is None:
            steps.append(Create(each.wanted, needs))
        elif each.ref not in yielding and not _is_going(each.live) and not each.is_as_intended:
            steps.append(_apply(each.wanted, each.live, needs))
    wanted = {each.ref for each in free}
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
