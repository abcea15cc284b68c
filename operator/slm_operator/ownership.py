"""Which fields of an object are ours, as the API server itself keeps account: ``metadata.managedFields``.

What we wrote is as we want it for as long as it is ours: whoever changes a value becomes its owner. So no live value
has to be compared with an intent, and nothing has to be known of defaults and of how lists are merged: ``fieldsV1``
says which element of a list is meant by its keys. A value that is ours and still differs was changed on its way in,
by a mutating webhook.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from slm_operator.crd.names import FIELD_MANAGER
from slm_operator.crd.quantities import parse_quantity
from slm_operator.snapshot import Document

_KEPT_BY_SERVER: Final = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}
)
"""Of metadata: nobody's fields."""
_QUANTITIES: Final = frozenset({"requests", "limits", "sizeLimit"})
"""Fields of our children that hold quantities, which have several spellings."""
_DEFAULTS: Final[Mapping[str, object]] = {
    "allocateLoadBalancerNodePorts": True,
    "dnsPolicy": "ClusterFirst",
    "externalTrafficPolicy": "Cluster",
    "internalTrafficPolicy": "Cluster",
    "protocol": "TCP",
    "restartPolicy": "Always",
    "resources": {},
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "sessionAffinity": "None",
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "volumeMode": "Filesystem",
}
"""What the API server fills in where our children are silent, and counts among the fields of a POST.

One that is missing here costs a write before the first change of a child, no more.
"""


@dataclass(frozen=True)
class Loss:
    """A field of the intent that isn't ours any more.

    Attributes
    ----------
    path
        For people: ``spec.template.spec.containers[serve].image``.
    manager
        Who owns it now; None where nobody does: it is gone.
    """

    path: str
    manager: str | None


@dataclass(frozen=True)
class Differences:
    """What of an intent isn't so; nothing where the object keeps no account at all, since nothing can be said then."""

    lost: tuple[Loss, ...] = ()
    """Fields that our manager owns no longer, neither by a POST nor by an apply."""
    rewritten: tuple[str, ...] = ()
    """Paths of fields that are ours, and whose live value isn't the intent's: a webhook changed them at admission."""


def differences(intent: Document, live: Document) -> Differences:
    found = _differences(intent, live)
    return Differences(
        lost=tuple(Loss(each.path, each.manager) for each in found if not each.is_ours),
        rewritten=tuple(each.path for each in found if each.is_ours),
    )


def leftover(intent: Document, live: Document) -> bool:
    """Whether our POST owns fields that the intent leaves out: an apply would leave them there.

    A field that stands at the API server's own default is none: it would come back at once.
    """
    claims = _claims(intent)
    posted = [entry for entry in _entries(live) if _is_ours(entry) and entry.get("operation") == "Update"]
    return any(_leaves(_fields(entry), claims, live) for entry in posted)


def scaled_by_others(live: Document) -> bool:
    """Whether the replicas of an object were last written through its scale, as an autoscaler does."""
    return any(
        entry.get("subresource") == "scale" and _has(_fields(entry), "spec", "replicas")
        for entry in _entries(live)
    )


def consolidated(managed: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
    """The same ``managedFields`` with all that is ours in one entry, that of an apply.

    Returns
    -------
    list or None
        None where it is so already.
    """
    ours = [entry for entry in managed if _is_ours(entry)]
    if not ours or (len(ours) == 1 and ours[0].get("operation") == "Apply"):
        return None
    fields: Mapping[str, Any] = {}
    for entry in ours:
        fields = _union(fields, entry.get("fieldsV1") or {})
    one = {**ours[-1], "operation": "Apply", "fieldsV1": fields}
    return [one, *(entry for entry in managed if not _is_ours(entry))]


@dataclass(frozen=True, slots=True)
class _Fields:
    """A set of fields below one field, as fieldsV1 has it: members of a map, elements of a list by their keys."""

    whole: bool
    """Nothing is below: a scalar, a list or map that is owned as one, or one of which only others own what is in it."""
    members: Mapping[str, "_Fields"]
    elements: tuple[tuple[Mapping[str, Any], "_Fields"], ...]
    values: tuple[Any, ...]

    def within(self, step: str | None, value: Any) -> "_Fields | None":
        """What is owned of a member, or of an element of a list (``step`` None)."""
        if step is not None:
            return self.members.get(step)
        if isinstance(value, dict):
            return next((fields for selector, fields in self.elements if _selects(selector, value)), None)
        return _WHOLE if value in self.values else None


_WHOLE: Final = _Fields(True, {}, (), ())


def _entries(live: Document) -> Sequence[Mapping[str, Any]]:
    managed: Sequence[Mapping[str, Any]] = live["metadata"].get("managedFields") or ()
    return [entry for entry in managed if entry.get("fieldsV1")]


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")


def _has(fields: _Fields, *path: str) -> bool:
    for step in path:
        below = fields.members.get(step)
        if below is None:
            return False
        fields = below
    return True


def _claims(intent: Document) -> dict[str, Any]:
    """What of an intent can be owned."""
    claims = {key: value for key, value in intent.items() if key not in {"apiVersion", "kind", "status"}}
    metadata = intent.get("metadata") or {}
    claims["metadata"] = {key: value for key, value in metadata.items() if key not in _KEPT_BY_SERVER}
    return claims


def _fields(entry: Mapping[str, Any]) -> _Fields:
    """Of an entry whose ``fieldsV1`` is JSON, or JSON as a text, which thousands of objects share."""
    fields = entry["fieldsV1"]
    return _parsed_text(fields) if isinstance(fields, str) else _parsed(fields)


@lru_cache(maxsize=4096)
def _parsed_text(text: str) -> _Fields:
    return _parsed(json.loads(text))


def _parsed(fields: Mapping[str, Any]) -> _Fields:
    if not fields:
        return _WHOLE
    members: dict[str, _Fields] = {}
    elements: list[tuple[Mapping[str, Any], _Fields]] = []
    values: list[Any] = []
    for key, below in fields.items():
        sort, _, rest = key.partition(":")
        if sort == "f":
            members[rest] = _parsed(below)
        elif sort == "k":
            elements.append((json.loads(rest), _parsed(below)))
        elif sort == "v":
            values.append(json.loads(rest))
    return _Fields(False, members, tuple(elements), tuple(values))


def _selects(selector: Mapping[str, Any], element: Mapping[str, Any]) -> bool:
    """A key that the element hasn't is one that the API server filled in."""
    return all(key not in element or element[key] == value for key, value in selector.items())


def _parts(value: Any) -> Iterator[tuple[str | None, Any]]:
    """Members and elements; what is None isn't there."""
    if isinstance(value, dict):
        for key, each in value.items():
            if each is not None:
                yield key, each
    else:
        for each in value:
            yield None, each


@dataclass(frozen=True, slots=True)
class _Difference:
    path: str
    is_ours: bool
    manager: str | None = None


def _differences(intent: Document, live: Document) -> list[_Difference]:
    entries = _entries(live)
    claims = _claims(intent)
    ours = [_fields(entry) for entry in entries if _is_ours(entry)]
    others = [(str(entry.get("manager", "")), _fields(entry)) for entry in entries if not _is_ours(entry)]
    theirs = [fields for _, fields in others]
    if not entries or any(_agrees(claims, live, fields, theirs) for fields in ours):
        return []
    return [
        _Difference(each.path.lstrip("."), each.is_ours, each.manager)
        for each in _differing(claims, live, ours, others, quantity=False)
    ]


def _agrees(value: Any, live: Any, ours: _Fields, others: Sequence[_Fields]) -> bool:
    """Whether one entry of ours has all of a value, and it is so: true of almost every object, and quickly seen."""
    if not _is_container(value):
        return bool(live == value) or (not value and not live)
    if ours.whole:
        return all(fields.whole for fields in others) and _contains(live, value)
    if isinstance(value, dict):
        for key, each in value.items():
            below = ours.members.get(key)
            if below is None:
                if _is_empty(each):
                    continue
                return False
            theirs = [found for fields in others if (found := fields.members.get(key)) is not None]
            if not _agrees(each, _member(live, key), below, theirs):
                return False
        return True
    for each in value:
        below = ours.within(None, each)
        theirs = [found for fields in others if (found := fields.within(None, each)) is not None]
        if below is None or not _agrees(each, _element(live, each, [ours]), below, theirs):
            return False
    return True


def _differing(
    value: Any,
    live: Any,
    ours: Sequence[_Fields],
    others: Sequence[tuple[str, _Fields]],
    *,
    quantity: bool,
) -> Iterator[_Difference]:
    within = [*ours, *(fields for _, fields in others)]
    if not _is_container(value) or all(fields.whole for fields in within):
        if not ours:
            # The API server keeps no account of what it leaves out as empty; the last entry is the latest.
            if others or not _is_empty(value):
                yield _Difference("", False, others[-1][0] if others else None)
        elif _is_gone(value, live):
            yield _Difference("", False)
        elif not _contains(live, value, quantity=quantity):
            yield _Difference("", True)
        return
    for step, each in _parts(value):
        there = _element(live, each, within) if step is None else _member(live, step)
        still = [found for fields in ours if (found := fields.within(step, each)) is not None]
        theirs = [
            (manager, found) for manager, fields in others if (found := fields.within(step, each)) is not None
        ]
        in_quantity = quantity or step in _QUANTITIES
        for below in _differing(each, there, still, theirs, quantity=in_quantity):
            yield _Difference(_text(step, each) + below.path, below.is_ours, below.manager)


def _is_gone(value: Any, live: Any) -> bool:
    """Whether nothing of a list or map is left: then we own no more of it than its name."""
    if isinstance(value, dict):
        return not _is_empty(value) and not (isinstance(live, dict) and live.keys() & value.keys())
    return _is_container(value) and bool(value) and not live


def _member(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _element(live: Any, wanted: Any, owned: Sequence[_Fields]) -> Any:
    """The live element that stands for the wanted one; None where there is none."""
    if not isinstance(live, (list, tuple)):
        return None
    if not isinstance(wanted, dict):
        return wanted if wanted in live else None
    selectors = [
        selector for fields in owned for selector, _ in fields.elements if _selects(selector, wanted)
    ]
    found = [each for each in live if any(_selects(one, each) for one in selectors)]
    if len(found) > 1:
        return next((each for each in found if _contains(each, wanted)), found[0])
    return found[0] if found else None


def _leaves(fields: _Fields, value: Any, live: Any) -> bool:
    """Whether there are fields which the intent's value hasn't and the live one has."""
    for key, below in fields.members.items():
        wanted, there = _member(value, key), _member(live, key)
        if there is None:
            continue
        if not below.whole:
            if _leaves(below, wanted, there):
                return True
        elif wanted is None and _DEFAULTS.get(key) != there:
            return True
    elements = value if isinstance(value, (list, tuple)) else ()
    for selector, below in fields.elements:
        wanted = next((each for each in elements if _selects(selector, each)), None)
        there = next((each for each in live or () if _selects(selector, each)), None)
        if there is not None and (wanted is None or _leaves(below, wanted, there)):
            return True
    return any(each not in elements for each in fields.values)


def _contains(live: Any, wanted: Any, *, quantity: bool = False) -> bool:
    """Whether the live value says what is wanted; it may have more members, which the API server fills in."""
    if _is_empty(wanted) and (live is None or _is_empty(live)):
        return True
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            _contains(live.get(key), each, quantity=quantity or key in _QUANTITIES)
            for key, each in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(live, (list, tuple))
            and len(live) == len(wanted)
            and all(_contains(one, other, quantity=quantity) for one, other in zip(live, wanted, strict=True))
        )
    return bool(live == wanted) or (quantity and _same_quantity(live, wanted))


def _same_quantity(live: Any, wanted: Any) -> bool:
    try:
        return parse_quantity(live) == parse_quantity(wanted)
    except ValueError:
        return False


def _is_container(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple))


def _is_empty(value: Any) -> bool:
    """Says no more than if it weren't there."""
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return not value


def _text(step: str | None, value: Any) -> str:
    """A step of a path; what holds dots, or is an element of a list, stands in brackets."""
    if step is None:
        named = isinstance(value, dict)
        return f"[{value.get('name', next(iter(value.values()), '')) if named else value}]"
    return f"[{step}]" if "." in step or "/" in step else f".{step}"


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = one.keys() & other.keys()
    return {**one, **other, **{key: _union(one[key], other[key]) for key in both}}
