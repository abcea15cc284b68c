"""Two states of an object, field by field: which fields a document has, what differs, what an apply makes of both.

A field is a path of elements as `managedFields` write them: `f:` a field, `k:` an element by its keys, `v:` one of a set.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from tests.sim.structure import GRANULAR, KEY_DEFAULTS, Part

Path = tuple[str, ...]
Paths = frozenset[Path]


@dataclass
class Difference:
    """Fields by what became of them; also the maps, lists and elements that came or went as a whole."""

    added: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)


def compare(before: Any, after: Any, part: Part) -> Difference:
    """What an update of a whole object changes; ``before`` is empty where it is new."""
    difference = Difference()
    _compare(before, after, part, (), difference)
    return difference


def _compare(before: Any, after: Any, part: Part, path: Path, into: Difference) -> None:
    if before == after:
        return
    ones, others = _elements(before, part), _elements(after, part)
    is_leaf = ones is None or others is None or not (before or after)
    if not is_leaf:
        is_there = before is not None and after is not None
        for name in ones | others:
            one, other, inner = ones.get(name), others.get(name), _inner(part, name)
            if is_there and inner.present:
                empty: Any = [] if inner.keys else {}
                one, other = (empty if each is None else each for each in (one, other))
            _compare(one, other, inner, (*path, name), into)
    if before is None:
        into.added.add(path)
    elif after is None:
        into.removed.add(path)
    elif is_leaf:
        into.modified.add(path)


def fields_of(document: Any, part: Part) -> Paths:
    """The fields that an apply of the document sets."""
    paths: list[Path] = []
    _collect(document, part, (), paths)
    return frozenset(paths)


def _collect(value: Any, part: Part, path: Path, into: list[Path]) -> None:
    elements = _elements(value, part)
    if elements is None:
        into.append(path)
        return
    for name, each in elements.items():
        below = (*path, name)
        if isinstance(value, list) or each is None or each == {}:
            into.append(below)
        _collect(each, _inner(part, name), below, into)


def merge(live: Any, intent: Any, part: Part) -> Any:
    """What an apply of the intent makes of the live object, before it drops what is no longer intended."""
    ones, others = _elements(live, part), _elements(intent, part)
    if live is None or ones is None or others is None or type(live) is not type(intent):
        return intent
    if isinstance(live, dict):
        return live | {key: merge(live.get(key), value, part.of(key)) for key, value in intent.items()}
    return [
        merge(ones.get(name), others[name], _inner(part, name)) if name in others else ones[name]
        for name in _order(list(ones), list(others))
    ]


def _order(live: list[str], intent: list[str]) -> Iterator[str]:
    """Both lists in one: each in its order, where they contradict each other in the intent's.

    It walks the lists as the API server does, because the order of a template's lists is part of its hash.
    """
    shared = [name for name in intent if name in set(live)]
    known, merged = set(intent), set()
    one = other = 0
    while one < len(live) or other < len(intent):
        if one < len(live) and other < len(intent):
            if live[one] == intent[other]:
                yield live[one]
                merged.add(live[one])
                one, other = one + 1, other + 1
                shared = shared[1:]
                continue
            if live[one] in known and shared and shared[0] != live[one]:
                one += 1
                continue
        if one < len(live):
            if live[one] not in known:
                yield live[one]
                one += 1
                continue
            if live[one] in merged:
                one += 1
        if other < len(intent):
            yield intent[other]
            merged.add(intent[other])
            if shared and shared[0] == intent[other]:
                shared = shared[1:]
            other += 1


def without(document: Any, paths: Iterable[Path], part: Part) -> Any:
    """The document without those fields and all that is below them, nor the maps and lists that this empties."""
    tree: dict[str, Any] = {}
    for path in sorted(paths, key=len, reverse=True):
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = None
    return _without(document, tree, part)


def _without(value: Any, tree: Mapping[str, Any], part: Part) -> Any:
    elements = _elements(value, part)
    if elements is None:
        return value
    kept = {
        name: _without(each, tree[name], _inner(part, name)) if name in tree else each
        for name, each in elements.items()
        if tree.get(name, "") is not None
    }
    if isinstance(value, list):
        return list(kept.values()) or None
    return {name[2:]: each for name, each in kept.items() if each is not None} or None


def _elements(value: Any, part: Part) -> dict[str, Any] | None:
    """What a map or list consists of; None where it is one value, nothing where it isn't there."""
    if part.atomic:
        return None
    if value is None:
        return {}
    if isinstance(value, dict):
        return {f"f:{key}": each for key, each in value.items()}
    if isinstance(value, list) and part.keys:
        return {_key(part.keys, tuple(each.get(key) for key in part.keys)): each for each in value}
    if isinstance(value, list) and part.is_set:
        return {f"v:{orjson.dumps(each).decode()}": each for each in value}
    return None


def _inner(part: Part, name: str) -> Part:
    if name.startswith("f:"):
        return part.fields.get(name[2:], GRANULAR)
    return part.element or GRANULAR


@lru_cache(maxsize=4096)
def _key(keys: tuple[str, ...], values: tuple[Any, ...]) -> str:
    told = {
        key: KEY_DEFAULTS.get(key) if value is None else value
        for key, value in zip(keys, values, strict=True)
        if value is not None or key in KEY_DEFAULTS
    }
    return f"k:{orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()}"
