"""Desired and observed → what to apply and what to delete. What says the same already is left alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from slm_operator.crd.names import INTENT_ANNOTATION
from slm_operator.crd.quantities import parse_quantity
from slm_operator.digest import digest
from slm_operator.snapshot import ChildRef, Delete, Document, Plan

_IMMUTABLE: Final = frozenset({"Job"})
"""Another template is another object, by name: one that exists is as it was made."""
_QUANTITIES: Final = frozenset({"requests", "limits"})
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit"})
_KEYS: Final = ("name", "mountPath", "containerPort", "port")
"""Fields by which the elements of a list are told apart, first that all elements have."""
_ATOMIC: Final = frozenset({"tolerations", "command", "drop", "accessModes", "items", "endpoints"})
"""Lists that are one value: another element in them is another value."""


@dataclass(frozen=True)
class Intent:
    """An object as it shall be."""

    document: Document
    digest: str

    @property
    def ref(self) -> ChildRef:
        return ref_of(self.document)


def intent(document: Mapping[str, Any], name: str | None = None) -> Intent:
    """Put the intent's digest on the object: a field that is dropped from it later shows by it.

    Parameters
    ----------
    name
        The digest, where it isn't that of the whole document.
    """
    told = digest(document) if name is None else name
    metadata = {
        **document["metadata"],
        "annotations": {**document["metadata"].get("annotations", {}), INTENT_ANNOTATION: told},
    }
    return Intent({**document, "metadata": metadata}, told)


def ref_of(document: Document) -> ChildRef:
    return ChildRef(str(document["kind"]), str(document["metadata"]["name"]))


def owned_by(document: Document, uid: str) -> bool:
    """Whether the object belongs to the SLMDeployment of this uid, not to one of the same name before it."""
    return any(
        reference.get("uid") == uid and reference.get("controller")
        for reference in document["metadata"].get("ownerReferences", ())
    )


def make_plan(
    desired: Sequence[Intent],
    observed: Mapping[ChildRef, Document],
    *,
    uid: str,
    create: Sequence[Document] = (),
) -> Plan:
    """What to do so that the desired objects are there, and nothing else of ours."""
    apply = tuple(
        each.document
        for each in desired
        if each.ref not in observed
        or (owned_by(observed[each.ref], uid) and not is_as_intended(each, observed[each.ref]))
    )
    wanted = {each.ref for each in desired}
    delete = tuple(
        Delete(
            api_version=str(document["apiVersion"]),
            ref=ref,
            uid=str(document["metadata"]["uid"]),
            resource_version=str(document["metadata"]["resourceVersion"]),
        )
        for ref, document in sorted(observed.items())
        if ref not in wanted and owned_by(document, uid) and "deletionTimestamp" not in document["metadata"]
    )
    return Plan(create=tuple(create), apply=apply, delete=delete)


def taken(desired: Sequence[Intent], observed: Mapping[ChildRef, Document], uid: str) -> tuple[ChildRef, ...]:
    """Names that somebody else's objects have: never touched."""
    return tuple(
        each.ref for each in desired if each.ref in observed and not owned_by(observed[each.ref], uid)
    )


def is_as_intended(wanted: Intent, live: Document) -> bool:
    """Whether applying the intent would change nothing: every field of it is so, the digest of the last intent included.

    Fields of others, and what the API server filled in, aren't in the intent and don't count.
    """
    if wanted.ref.kind in _IMMUTABLE:
        return bool(live["metadata"].get("annotations", {}).get(INTENT_ANNOTATION) == wanted.digest)
    return _contains(live, wanted.document)


def _contains(live: Any, wanted: Any, path: tuple[str, ...] = ()) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and _contains(live[key], value, (*path, key)) for key, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return isinstance(live, (list, tuple)) and _list_contains(live, wanted, path)
    if wanted == live:
        return True
    in_quantities = len(path) > 1 and path[-2] in _QUANTITIES
    return (in_quantities or (bool(path) and path[-1] in _QUANTITY_FIELDS)) and _same_quantity(live, wanted)


def _list_contains(live: Sequence[Any], wanted: Sequence[Any], path: tuple[str, ...]) -> bool:
    key = None if path and path[-1] in _ATOMIC else _list_key(wanted)
    if key is None:
        return len(live) == len(wanted) and all(
            _contains(one, other, path) for one, other in zip(live, wanted, strict=True)
        )
    found = {each.get(key): each for each in live if isinstance(each, Mapping)}
    return all(each[key] in found and _contains(found[each[key]], each, path) for each in wanted)


def _list_key(elements: Sequence[Any]) -> str | None:
    if not elements or not all(isinstance(each, Mapping) for each in elements):
        return None
    return next((key for key in _KEYS if all(key in each for each in elements)), None)


def _same_quantity(live: Any, wanted: Any) -> bool:
    try:
        return parse_quantity(live) == parse_quantity(wanted)
    except ValueError:
        return False
