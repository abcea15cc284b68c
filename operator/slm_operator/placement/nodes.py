"""Which nodes a class could use: labels, taints and what they offer. Whether it is free is the scheduler's to say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.spec import Hardware
from slm_operator.settings import HardwareClass
from slm_operator.snapshot import Node


@dataclass(frozen=True)
class Offer:
    """What the nodes have for a class."""

    nodes: int
    """Nodes that a pod of the class may run on."""
    memory: int
    """Allocatable memory of the largest of them, bytes."""
    problem: str | None = None
    """Why there is none, in a sentence without its subject."""


def offer(nodes: Sequence[Node], hardware_class: HardwareClass, hardware: Hardware) -> Offer:
    """What `nodes` have for pods of the class."""
    selector = {**hardware_class.node_selector, **hardware.node_selector}
    resource = hardware_class.resource
    usable = [node for node in nodes if node.ready and not node.unschedulable]
    labelled = [node for node in usable if selector.items() <= dict(node.labels).items()]
    offering = [
        node
        for node in labelled
        if resource is None or parse_quantity(node.allocatable.get(resource.name, "0")) >= resource.count
    ]
    tolerations = [
        toleration.model_dump(by_alias=True, exclude_none=True)
        for toleration in (*hardware_class.tolerations, *hardware.tolerations)
    ]
    fitting = [node for node in offering if _tolerated(node.taints, tolerations)]
    if fitting:
        memory = max(int(parse_quantity(node.allocatable.get("memory", "0"))) for node in fitting)
        return Offer(len(fitting), memory)
    return Offer(0, 0, _problem(nodes, usable, labelled, offering, hardware_class, selector))


def _problem(
    nodes: Sequence[Node],
    usable: Sequence[Node],
    labelled: Sequence[Node],
    offering: Sequence[Node],
    hardware_class: HardwareClass,
    selector: Mapping[str, str],
) -> str:
    if offering:
        keys = sorted({str(taint.get("key")) for node in offering for taint in node.taints})
        return f"{_count(len(offering))} would do, but the class tolerates none of their taints ({', '.join(keys)})"
    if labelled and hardware_class.resource is not None:
        wanted = hardware_class.resource
        if wanted.count == 1:
            return f"no node offers {wanted.name}"
        return f"no node offers {wanted.count} of {wanted.name}"
    if usable:
        text = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        return f"no node has the labels {text}"
    return f"none of {_count(len(nodes))} is ready for pods" if nodes else "the cluster has no node"


def _count(nodes: int) -> str:
    return f"{nodes} node" if nodes == 1 else f"{nodes} nodes"


def _tolerated(taints: Iterable[Mapping[str, str]], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a pod may be put on a node with these taints; `PreferNoSchedule` only asks."""
    kept = list(tolerations)
    return all(
        any(_matches(toleration, taint) for toleration in kept)
        for taint in taints
        if taint.get("effect") in {"NoSchedule", "NoExecute"}
    )


def _matches(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in {None, "", taint.get("key")}
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")
