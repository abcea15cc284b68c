"""Claims that one node alone can have: pods that share one run beside each other, and never two revisions at once."""

from typing import Any

import pytest

from slm_contract.source import SourcePin
from slm_operator.crd.names import selector
from tests.unit.operator_core.world import GIVEN, SMOLLM2, World, spec

PIN = SourcePin(digest=64 * "1")
SOURCE = {"source": "pvc://models/m.gguf"}
SHARED = {"claimName": "shared"}
OWN = {"mode": "PVC", "size": "2Gi"}
TERM = {"labelSelector": {"matchLabels": selector("smollm2")}, "topologyKey": "kubernetes.io/hostname"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def deployed(**changes: Any) -> World:
    world = World(spec(**{"resources": GIVEN, **changes}))
    world.settle()
    for purpose in ("inspect", "pull"):
        if any(f"-{purpose}-" in ref.name for ref in world.children):
            world.finish_job(purpose, SMOLLM2.model_copy(update={"pin": PIN}))
            world.settle()
    return world


def neighbours(world: World) -> list[Any]:
    """Those beside which serving pods must run."""
    affinity = world.deployment["spec"]["template"]["spec"].get("affinity", {})
    return list(affinity.get("podAffinity", {}).get(REQUIRED, ()))


@pytest.mark.parametrize(
    ("changes", "one_node"),
    [
        ({}, False),
        ({"cache": OWN}, True),
        ({"cache": {**OWN, "accessModes": ["ReadWriteMany"]}}, False),
        ({"model": SOURCE}, True),
        ({"model": SOURCE, "cache": {"accessModes": ["ReadWriteOncePod"]}}, True),
        ({"model": SOURCE, "cache": {"accessModes": ["ReadWriteMany"]}}, False),
        ({"model": SOURCE, "cache": {"accessModes": ["ReadOnlyMany"]}}, False),
        ({"model": SOURCE, "cache": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}, False),
        ({"cache": {"accessModes": ["ReadWriteOnce"]}}, False),
        ({"cache": {**SHARED, "accessModes": ["ReadWriteOnce"]}}, True),
        ({"cache": {**SHARED, "accessModes": ["ReadOnlyMany"]}}, False),
        ({"cache": {**SHARED, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}, True),
        ({"cache": {**SHARED, "accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}, False),
    ],
    ids=str,
)
def test_pods_on_a_claim_of_one_node_are_neighbours(changes: dict[str, Any], one_node: bool) -> None:
    world = deployed(**changes, replicas=3)
    assert neighbours(world) == ([TERM] if one_node else [])
    assert world.deployment["spec"]["strategy"]["type"] == ("Recreate" if one_node else "RollingUpdate")


def test_a_variant_on_a_claim_counts_where_its_class_is_selected() -> None:
    model = {**spec()["model"], "variants": [{"hardware": "gpu", **SOURCE}]}
    assert neighbours(deployed(model=model, hardware={"preference": ["cpu"]})) == []
    model = {**spec()["model"], "variants": [{"hardware": "cpu", **SOURCE}]}
    assert neighbours(deployed(model=model, hardware={"preference": ["cpu"]})) == [TERM]


def test_a_spec_s_own_affinity_stays() -> None:
    own = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "near"}}}
    nodes = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}
    affinity = {"podAffinity": {REQUIRED: [own]}, "nodeAffinity": {REQUIRED: nodes}}
    world = deployed(model=SOURCE, podTemplate={"affinity": affinity})
    assert neighbours(world) == [own, TERM]
    assert world.deployment["spec"]["template"]["spec"]["affinity"]["nodeAffinity"] == {REQUIRED: nodes}


@pytest.mark.parametrize(("modes", "beside"), [(["ReadWriteOnce"], True), (["ReadWriteMany"], False)])
def test_a_claim_that_serves_is_looked_at_on_its_node(modes: list[str], beside: bool) -> None:
    """Another path on the claim: its header can be read only where the claim is."""
    world = deployed(model=SOURCE, cache={"accessModes": modes})
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": PIN}))
    for pod in world.pods:
        pod["spec"]["nodeName"] = "node-1"
    world.settle()
    world.edit(model={"source": "pvc://models/other.gguf"})
    world.settle()
    affinity = world.job("inspect")["spec"]["template"]["spec"].get("affinity")
    assert affinity == ({"podAffinity": {REQUIRED: [TERM]}} if beside else None)
