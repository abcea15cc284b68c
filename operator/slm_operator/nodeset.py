"""The nodes as they come and go, reduced to what placement can use: most changes of a node change nothing here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from slm_operator.nodes import MEMORY, STORAGE, Node, NodeKind, Nodes
from slm_operator.settings import HardwareClass


@dataclass(frozen=True)
class _Seen:
    kind: NodeKind
    packed: bytes
    """The whole node: a label that nobody asks for today may be selected by tomorrow."""


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
        self._kinds: dict[NodeKind, NodeKind] = {}
        self._nodes: Nodes | None = None

    @property
    def nodes(self) -> Nodes:
        if self._nodes is None:
            self._nodes = Nodes(Counter(seen.kind for seen in self._seen.values()))
            self._kinds = {kind: kind for kind in self._nodes.kinds}
        return self._nodes

    def names(self) -> list[str]:
        return list(self._seen)

    def put(self, node: Node) -> bool:
        """Take a node in; True where the change is one that placement can see."""
        kind = self._kind(node)
        before = self._seen.get(node.name)
        self._seen[node.name] = _Seen(kind, _pack(node))
        if before is not None and before.kind == kind:
            return False
        self._nodes = None
        return True

    def remove(self, name: str) -> bool:
        if self._seen.pop(name, None) is None:
            return False
        self._nodes = None
        return True

    def select(self, *, more: Iterable[str] = (), less: Iterable[str] = ()) -> None:
        """Somebody's selector names these labels now, or no longer."""
        before = set(self._selected)
        self._selected.update(more)
        self._selected.subtract(less)
        self._selected = +self._selected
        if set(self._selected) ^ before <= self._fixed:
            return
        self._nodes = None
        for name, seen in self._seen.items():
            self._seen[name] = _Seen(self._kind(_unpack(seen.packed)), seen.packed)

    def _kind(self, node: Node) -> NodeKind:
        """Nodes of a kind share it."""
        labels = self._fixed | self._selected.keys()
        kind = NodeKind.of(node, labels=labels, resources=self._resources)
        return self._kinds.setdefault(kind, kind)


def _pack(node: Node) -> bytes:
    return orjson.dumps(node)


def _unpack(packed: bytes) -> Node:
    fields = orjson.loads(packed)
    return Node(**{**fields, "taints": tuple(fields["taints"])})
