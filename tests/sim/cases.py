"""SLMDeployments and nodes for the simulations, and the real core with settings to match."""

from typing import Any

from slm_operator.crd import names
from slm_operator.decide import decide
from slm_operator.settings import HardwareClass, ResourceRequest, Settings
from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.world import Faults, World

SETTINGS = Settings(
    runtime_image="runtime:1",
    poll_seconds=5,
    classes=(
        HardwareClass(
            name="npu-test",
            family="npu",
            node_selector={"npu": "yes"},
            resource=ResourceRequest(name="example.com/npu"),
        ),
        HardwareClass(name="cpu", family="cpu"),
    ),
)
SLM = Ref(names.KIND, "demo", "a")
DEPLOYMENT = Ref("Deployment", "demo", "a")
GIVEN = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}}
"""Resources, so that nothing has to be known of the model before the Deployment is made."""


def slm(name: str = "a", **spec: Any) -> Doc:
    model = {"name": "m", "source": "https://models.example.com/m.gguf"}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"model": model, "resources": GIVEN, "hardware": {"preference": ["cpu"]}, **spec},
    }


def node(name: str = "n", **allocatable: str) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110", **allocatable},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def npu_node() -> Doc:
    """One device of the preferred class."""
    made = node("fast", **{"example.com/npu": "1"})
    made["metadata"]["labels"]["npu"] = "yes"
    return made


def world(**faults: Any) -> World:
    """A cluster of one node, without operator."""
    each = World(SETTINGS, decide, faults=Faults(**faults), cluster=MemoryCluster())
    each.cluster.put(node())
    return each
