"""Who owns which field of an object: `metadata.managedFields` as the API server keeps them.

An update takes what it changes from everybody else, with the name of who made it. An apply owns all that it says, beside
others who say the same; with force it takes what others say differently. What an apply said and its next one doesn't goes
from the object, unless somebody else owns it too, be it the same manager's own POST.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from slm_operator.cluster import errors
from tests.sim.merging import Difference, Path, Paths, compare, fields_of, merge, without
from tests.sim.structure import Part

Doc = dict[str, Any]
APPLY: Final = "Apply"
UPDATE: Final = "Update"
_SYSTEM: Final = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    }
)
"""Of the metadata: the API server's own, which nobody owns."""


class Manager(NamedTuple):
    """One entry of `managedFields`."""

    name: str
    operation: str
    subresource: str = ""


@dataclass(frozen=True)
class Owned:
    """The fields of one manager, and when it last changed one; empty where its applies only said what was so already."""

    paths: Paths
    time: str

    @cached_property
    def encoded(self) -> Doc:
        """In the form of `fieldsV1`."""
        root: Doc = {}
        nodes = []
        for path in self.paths:
            node = root
            for name in path:
                node = node.setdefault(name, {})
            nodes.append(node)
        for node in nodes:
            if node:
                node["."] = {}
        return root


Owners = Mapping[Manager, Owned]
NOBODY: Final[Owners] = {}


def content(document: Doc) -> Doc:
    """What can be owned of a document."""
    metadata = {key: value for key, value in document["metadata"].items() if key not in _SYSTEM}
    parts = {key: value for key, value in document.items() if key not in {"apiVersion", "kind", "metadata"}}
    return {**parts, "metadata": metadata} if metadata else parts


def system(document: Doc) -> Doc:
    """The metadata that nobody owns."""
    return {key: value for key, value in document["metadata"].items() if key in _SYSTEM}


def updated(owners: Owners, manager: Manager, change: Difference, time: str) -> Owners:
    """After an update by the manager."""
    taken = change.added | change.modified
    if not taken and not change.removed:
        return owners
    result = _without(owners, taken | change.removed)
    if taken:
        own = result[manager].paths if manager in result else frozenset()
        result[manager] = Owned(own | taken, time)
    return result


def applied(
    owners: Owners, manager: Manager, live: Doc, intent: Doc, part: Part, time: str, *, force: bool
) -> tuple[Doc, Owners]:
    """The object after an apply by the manager, and who owns it then.

    Raises
    ------
    TakenError
        Without ``force``: others own fields with another value.
    """
    said = fields_of(intent, part)
    others = {each: owned for each, owned in owners.items() if each != manager}
    before = owners.get(manager)
    merged = merge(live, intent, part)
    if before is not None and not before.paths <= said:
        claimed = said.union(*(owned.paths for owned in others.values()))
        merged = without(merged, _with_maps(before.paths) - _with_maps(claimed), part) or {}
    change = compare(live, merged, part)
    taken = change.added | change.modified
    if not force:
        _refuse_conflicts(others, taken)
    if not (taken or change.removed):
        time = "" if before is None else before.time
    result = _without(others, taken | change.removed)
    if said:
        result[manager] = before if before == Owned(said, time) else Owned(said, time)
    return merged, result


def consolidated(owners: Owners, name: str, time: str) -> Owners:
    """All that a manager owns of the main resource in its Apply entry."""
    posted, kept = Manager(name, UPDATE), Manager(name, APPLY)
    if posted not in owners:
        return owners
    own = owners[posted].paths | (owners[kept].paths if kept in owners else frozenset())
    return {**{each: owned for each, owned in owners.items() if each != posted}, kept: Owned(own, time)}


def same(owners: Owners, others: Owners) -> bool:
    """Whether all own the same; times alone are no reason for a write."""
    return owners.keys() == others.keys() and all(
        owned.paths == others[manager].paths for manager, owned in owners.items()
    )


def entries(owners: Owners, api_version: str) -> list[Doc]:
    """As `metadata.managedFields`."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": api_version,
            **({"time": owned.time} if owned.time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.encoded,
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager, owned in sorted(
            owners.items(), key=lambda each: (each[0].operation, each[1].time, each[0].name, each[0])
        )
    ]


def owners_of(managed: Sequence[Doc]) -> Owners:
    """From `metadata.managedFields` that somebody has written."""
    return {
        Manager(each["manager"], each["operation"], each.get("subresource", "")): Owned(
            frozenset(_decoded(each["fieldsV1"], ())), each.get("time", "")
        )
        for each in managed
        if each
    }


def _decoded(node: Doc, path: Path) -> Iterator[Path]:
    if path and (not node or "." in node):
        yield path
    for name, below in node.items():
        if name != ".":
            yield from _decoded(below, (*path, name))


def _without(owners: Owners, lost: set[Path]) -> dict[Manager, Owned]:
    """Whoever owns nothing any more has no entry."""
    result = {}
    for manager, owned in owners.items():
        gone = owned.paths & lost
        if len(gone) < len(owned.paths):
            result[manager] = Owned(owned.paths - gone, owned.time) if gone else owned
    return result


def _with_maps(paths: Paths) -> set[Path]:
    """Also the maps and lists that the fields are in; an element of a list is its owner's only by its own name."""
    return paths | {
        path[:end] for path in paths for end in range(1, len(path)) if path[end - 1].startswith("f:")
    }


def _refuse_conflicts(others: Owners, taken: set[Path]) -> None:
    conflicts = {manager.name: sorted(owned.paths & taken) for manager, owned in others.items()}
    told = [f'conflict with "{name}": {path[-1]}' for name, paths in conflicts.items() for path in paths]
    if told:
        raise errors.TakenError(f"Apply failed with {len(told)} conflicts: {', '.join(told)}")
