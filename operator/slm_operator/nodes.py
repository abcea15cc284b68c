"""The cluster's nodes as placement sees them: grouped by what they are alike in, asked once a generation.

Whether a node is free is the scheduler's to say.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.spec import Hardware, Toleration
from slm_operator.settings import HardwareClass
from slm_operator.settings import Toleration as ClassToleration

MEMORY: Final = "memory"
STORAGE: Final = "ephemeral-storage"


@dataclass(frozen=True)
class Node:
    """A node as the API server has it, without what no placement asks for."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    allocatable: Mapping[str, str]
    """Quantities as Kubernetes writes them."""
    ready: bool = True
    unschedulable: bool = False


@dataclass(frozen=True)
class NodeKind:
    """What nodes that are alike have in common; a change of a node that leaves it the same concerns nobody."""

    labels: frozenset[tuple[str, str]]
    """Those that somebody selects by: host names and the like would make every node a kind of its own."""
    taints: frozenset[tuple[str, str, str]]
    """Key, value and effect of those that keep pods away."""
    allocatable: frozenset[tuple[str, int]]
    """Memory and ephemeral storage in bytes, and the pieces of what classes ask for."""
    usable: bool
    """Ready, and takes pods."""

    @staticmethod
    def of(
        node: Node, *, labels: Collection[str] | None = None, resources: Collection[str] | None = None
    ) -> "NodeKind":
        """The kind of a node, told by these labels and resources only; None: by all."""
        return NodeKind(
            labels=frozenset(each for each in node.labels.items() if labels is None or each[0] in labels),
            taints=frozenset(
                (taint.get("key", ""), taint.get("value", ""), taint.get("effect", ""))
                for taint in node.taints
                if taint.get("effect") in {"NoSchedule", "NoExecute"}
            ),
            allocatable=frozenset(
                (name, _whole(quantity))
                for name, quantity in node.allocatable.items()
                if resources is None or name in resources
            ),
            usable=node.ready and not node.unschedulable,
        )

    def amount(self, resource: str) -> int:
        return next((amount for name, amount in self.allocatable if name == resource), 0)


@dataclass(frozen=True)
class Offer:
    """What the nodes have for a class."""

    nodes: int
    """Nodes that a pod of the class may run on."""
    memory: int
    """Allocatable memory of the largest of them, less what the class keeps for others; bytes."""
    problem: str | None = None
    """Why there is none, in a sentence without its subject."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of one generation: shared by all who decide meanwhile, and equal to any with the same nodes."""

    kinds: Mapping[NodeKind, int]
    """How many there are of each."""
    _offers: dict[Any, Offer] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(nodes: Iterable[Node]) -> "Nodes":
        return Nodes(Counter(map(NodeKind.of, nodes)))

    def offer(self, hardware_class: HardwareClass, hardware: Hardware) -> Offer:
        """What there is for pods of the class whose spec asks for this hardware; computed once."""
        selector = frozenset({**hardware_class.node_selector, **hardware.node_selector}.items())
        tolerations = (
            *map(_toleration, hardware_class.tolerations),
            *map(_toleration, hardware.tolerations),
        )
        resource = hardware_class.resource
        wanted = None if resource is None else (resource.name, resource.count)
        asked = (selector, tolerations, wanted)
        if asked not in self._offers:
            self._offers[asked] = self._offer(selector, tolerations, wanted)
        offered, reserved = self._offers[asked], hardware_class.reserved_memory
        return (
            offered
            if reserved is None
            else replace(offered, memory=max(0, offered.memory - _whole(reserved)))
        )

    def room(self, hardware_class: HardwareClass, hardware: Hardware, memory: int) -> int:
        """Pods of the class with this memory (bytes) that the nodes could hold, if nothing else ran there."""
        selector = frozenset({**hardware_class.node_selector, **hardware.node_selector}.items())
        tolerations = (
            *map(_toleration, hardware_class.tolerations),
            *map(_toleration, hardware.tolerations),
        )
        resource, reserved = hardware_class.resource, _whole(hardware_class.reserved_memory or "0")
        return sum(
            count
            * min(
                (
                    max(0, kind.amount(MEMORY) - reserved) // max(memory, 1),
                    *(() if resource is None else (kind.amount(resource.name) // resource.count,)),
                )
            )
            for kind, count in self.kinds.items()
            if kind.usable and selector <= kind.labels and _tolerated(kind.taints, tolerations)
        )

    def _offer(
        self,
        selector: frozenset[tuple[str, str]],
        tolerations: tuple["_Toleration", ...],
        wanted: tuple[str, int] | None,
    ) -> Offer:
        usable = [kind for kind in self.kinds if kind.usable]
        labelled = [kind for kind in usable if selector <= kind.labels]
        offering = [kind for kind in labelled if wanted is None or kind.amount(wanted[0]) >= wanted[1]]
        fitting = [kind for kind in offering if _tolerated(kind.taints, tolerations)]
        if fitting:
            return Offer(self._count(fitting), max(kind.amount(MEMORY) for kind in fitting))
        if offering:
            keys = ", ".join(sorted({taint[0] for kind in offering for taint in kind.taints}))
            would = f"{_nodes(self._count(offering))} would do"
            return Offer(0, 0, f"{would}, but the class tolerates none of their taints ({keys})")
        if labelled and wanted is not None:
            name, count = wanted
            return Offer(
                0, 0, f"no node offers {name}" if count == 1 else f"no node offers {count} of {name}"
            )
        if usable:
            text = ", ".join(f"{key}={value}" for key, value in sorted(selector))
            return Offer(0, 0, f"no node has the labels {text}")
        total = self._count(self.kinds)
        return Offer(
            0, 0, f"none of {_nodes(total)} is ready for pods" if total else "the cluster has no node"
        )

    def _count(self, kinds: Iterable[NodeKind]) -> int:
        return sum(self.kinds[kind] for kind in kinds)


_Toleration = tuple[str, str, str, str]
"""Key, operator, value and effect; empty where absent."""


def _toleration(toleration: Toleration | ClassToleration) -> _Toleration:
    return (
        toleration.key or "",
        toleration.operator or "Equal",
        toleration.value or "",
        toleration.effect or "",
    )


def _tolerated(taints: Iterable[tuple[str, str, str]], tolerations: Iterable[_Toleration]) -> bool:
    """Whether a pod may be put on a node with these taints."""
    return all(any(_matches(toleration, taint) for toleration in tolerations) for taint in taints)


def _matches(toleration: _Toleration, taint: tuple[str, str, str]) -> bool:
    key, operator, value, effect = toleration
    if effect not in {"", taint[2]}:
        return False
    if operator == "Exists":
        return key in {"", taint[0]}
    return (key, value) == taint[:2]


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


@lru_cache(maxsize=4096)
def _whole(quantity: str) -> int:
    return int(parse_quantity(quantity))
