"""Nodes as one sees them who places: alike or not, and asked once."""

import dataclasses

from slm_operator.crd.spec import Hardware, Toleration
from slm_operator.nodes import Node, NodeKind, Nodes, Offer
from slm_operator.settings import HardwareClass
from tests.unit.operator_core.world import CPU, GPU, gpu_node, node


def named(name: str, **more: str) -> Node:
    return Node(
        name, {"zone": "a", "kubernetes.io/hostname": name, **more}, (), {"memory": "8Gi", "cpu": "4"}
    )


def test_nodes_are_alike_by_what_is_selected_by():
    kinds = {
        NodeKind.of(named(f"n{number}"), labels={"zone"}, resources={"memory"}) for number in range(5000)
    }
    assert len(kinds) == 1
    assert len({*kinds, NodeKind.of(named("m", zone="b"), labels={"zone"}, resources={"memory"})}) == 2


def test_quantities_that_mean_the_same_are_the_same():
    assert Nodes.of([node(memory="1Gi")]) == Nodes.of([node("other", memory="1024Mi")])


def test_what_only_asks_to_keep_away_keeps_nobody_away():
    asking = Node("n", {}, ({"key": "k", "effect": "PreferNoSchedule"},), {"memory": "1Gi"})
    assert Nodes.of([asking]).offer(CPU, Hardware()) == Offer(1, 1 << 30)


def test_an_offer_is_of_the_class_and_of_what_the_spec_adds():
    tainted = Node(
        "t", {"zone": "b"}, ({"key": "k", "value": "v", "effect": "NoSchedule"},), {"memory": "64Gi"}
    )
    nodes = Nodes.of([node(), gpu_node(memory="32Gi"), tainted])
    assert nodes.offer(CPU, Hardware()) == Offer(2, 32 << 30)
    assert nodes.offer(GPU, Hardware()) == Offer(1, 32 << 30)
    tolerating = Hardware(tolerations=(Toleration(key="k", value="v"),))
    assert nodes.offer(CPU, tolerating) == Offer(3, 64 << 30)
    assert nodes.offer(CPU, Hardware(node_selector={"zone": "c"})).problem == "no node has the labels zone=c"


def test_what_a_class_keeps_for_others_is_no_room():
    nodes = Nodes.of([node(memory="4Gi")])
    less = CPU.model_copy(update={"reserved_memory": "512Mi"})
    assert nodes.offer(CPU, Hardware()).memory == 4 << 30
    assert nodes.offer(less, Hardware()) == dataclasses.replace(
        nodes.offer(CPU, Hardware()), memory=(4 << 30) - (512 << 20)
    )
    assert nodes.offer(CPU.model_copy(update={"reserved_memory": "5Gi"}), Hardware()).memory == 0


def test_classes_of_one_name_and_another_bundle_have_offers_of_their_own():
    """A revision keeps the bundle that its pods were made from."""
    nodes = Nodes.of([node()])
    assert nodes.offer(CPU, Hardware()).nodes == 1
    earlier = HardwareClass(name=CPU.name, family=CPU.family, node_selector={"disk": "fast"})
    assert nodes.offer(earlier, Hardware()).nodes == 0
