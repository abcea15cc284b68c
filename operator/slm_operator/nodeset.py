"""The nodes as they come and go, reduced to what placement can use: most changes of a node change nothing here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import orjson

from slm_operator.nodes import MEMORY, STORAGE, Node, NodeKind, Nodes
from slm_operator.settings import HardwareClass


@dataclass(frozen=True)
class _Seen:
    kind: NodeKind
    labels: bytes
    """All of them, as JSON: what nobody asks for today may be selected by tomorrow."""


class NodeSet:
    """Keeps one :class:`Nodes` a generation, made when it is asked for.

    Parameters
    ----------
    classes
        Their selectors and resources are what nodes are told apart by, beside what is selected by :meth:`select`.
    """

    def __init__(self, classes: Iterable[HardwareClass]) -> None:
        known = tuple(classes)
        self._resources = {MEMORY, STORAGE, *(each.resource.name for each in known if each.resource)}
        self._fixed = {key for each in known for key in each.node_selector}
        self._selected: Counter[str] = Counter()
        self._seen: dict[str, _Seen] = {}
        self._counts: Counter[NodeKind] = Counter()
        self._kinds: dict[NodeKind, NodeKind] = {}
        """Nodes that are alike share what tells them."""
        self._nodes: Nodes | None = None

    @property
    def nodes(self) -> Nodes:
        if self._nodes is None:
            self._nodes = Nodes(self._counts.copy())
        return self._nodes

    def put(self, node: Node) -> bool:
        """Take a node in; True where the change is one that placement can see."""
        labels = self._fixed | self._selected.keys()
        kind = NodeKind.of(node, labels=labels, resources=self._resources)
        return self._take(node.name, _Seen(kind, orjson.dumps(node.labels)))

    def remove(self, name: str) -> bool:
        """Forget a node; True where there was one."""
        seen = self._seen.pop(name, None)
        if seen is None:
            return False
        self._uncount(seen.kind)
        return True

    def select(self, *, more: Iterable[str] = (), less: Iterable[str] = ()) -> None:
        """Somebody's selector names these labels now, or no longer."""
        before = set(self._selected)
        self._selected.update(more)
        self._selected.subtract(less)
        self._selected = +self._selected
        for label in (self._selected.keys() ^ before) - self._fixed:
            self._retell(label)

    def _retell(self, label: str) -> None:
        """Tell nodes apart by one label more, or one less."""
        written = orjson.dumps(label)
        for name, seen in list(self._seen.items()):
            if written not in seen.labels:
                continue
            pair = {(key, value) for key, value in orjson.loads(seen.labels).items() if key == label}
            labels = seen.kind.labels | pair if label in self._selected else seen.kind.labels - pair
            self._take(name, _Seen(replace(seen.kind, labels=labels), seen.labels))

    def _take(self, name: str, seen: _Seen) -> bool:
        before = self._seen.get(name)
        kind = self._kinds.setdefault(seen.kind, seen.kind)
        self._seen[name] = _Seen(kind, seen.labels)
        if before is not None and before.kind == kind:
            return False
        self._nodes = None
        self._counts[kind] += 1
        if before is not None:
            self._uncount(before.kind)
        return True

    def _uncount(self, kind: NodeKind) -> None:
        self._nodes = None
        self._counts[kind] -= 1
        if not self._counts[kind]:
            del self._counts[kind], self._kinds[kind]
