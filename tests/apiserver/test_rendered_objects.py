"""What a real API server makes of our objects: it takes them all, and what it fills in is no drift."""

import json
from pathlib import Path

import pytest
import yaml

from slm_operator.crd.__main__ import crd_text
from slm_operator.crd.names import INTENT_ANNOTATION
from slm_operator.plan import compare
from slm_operator.snapshot import Create, Document
from tests.cluster import ControlPlane, service_monitor_crd
from tests.contract.test_examples import EXAMPLES, SETTINGS
from tests.unit.operator_core.world import World, gpu_node, node

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> ControlPlane:
    """With the CRDs of the operator and of ServiceMonitor."""
    control_plane.kubectl("apply", "--server-side", "-f", "-", input=crd_text())
    control_plane.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    control_plane.established("slmdeployments.slm-operator.io", "servicemonitors.monitoring.coreos.com")
    return control_plane


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_the_api_server_fills_in_is_no_drift(served: ControlPlane, example: Path) -> None:
    document = yaml.safe_load(example.read_text())
    namespace = f"contract-{example.stem}"
    served.kubectl("create", "namespace", namespace)
    served.kubectl("apply", "-n", namespace, "-f", "-", input=example.read_text())
    name = document["metadata"]["name"]
    resource = json.loads(served.kubectl("get", "-n", namespace, "slm", name, "-o", "json"))
    world = World(resource["spec"], name=name, settings=SETTINGS, nodes=(node(), gpu_node()), monitoring=True)
    world.resource["metadata"] = resource["metadata"]
    for purpose in ("inspect", "pull", "none"):
        for step in world.decide().plan.steps:
            if isinstance(step, Create) and not step.once:
                made = json.loads(served.kubectl(*CREATE, input=json.dumps(step.document)))
                (child,) = compare([_unmarked(step.document)], {step.ref: made})
                assert child.is_as_intended, (step.ref, child.differences)
                assert not child.differences.rewritten, step.ref
        world.settle()
        if any(f"-{purpose}-" in ref.name for ref in world.children):
            world.finish_job(purpose)
    for created in world.secrets.values():
        served.kubectl("create", "-f", "-", input=json.dumps(created))
    world.run_pods()
    world.settle()
    # The whole status has to survive pruning and validation.
    resource["status"] = world.status
    served.kubectl("replace", "--subresource=status", "-f", "-", input=json.dumps(resource))
    kept = json.loads(served.kubectl("get", "-n", namespace, "slm", name, "-o", "json"))
    assert kept["status"] == json.loads(json.dumps(world.status))
    row = served.kubectl("get", "-n", namespace, "slm", name, "--no-headers").split()
    assert world.status["display"]["ready"] in row
    assert "Serving" in row
    scale = json.loads(
        served.kubectl("get", "-n", namespace, "slm", name, "--subresource=scale", "-o", "json")
    )
    assert scale["status"]["selector"] == world.status["selector"]


CREATE = ("create", "--field-manager=slm-operator", "--validate=strict", "-o", "json", "-f", "-")


def _unmarked(document: Document) -> Document:
    """The document whose intent it is."""
    metadata = dict(document["metadata"])
    annotations = {key: each for key, each in metadata.pop("annotations").items() if key != INTENT_ANNOTATION}
    if annotations:
        metadata["annotations"] = annotations
    return {**document, "metadata": metadata}
