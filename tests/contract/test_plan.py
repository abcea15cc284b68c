"""`kubectl slm plan` says of every example what the operator then does with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_slm.__main__ import main
from kubectl_slm.planning.rehearsal import Rehearsal, rehearse
from tests.contract.test_examples import EXAMPLES, ROOT, SETTINGS, world_of
from tests.unit.operator_core.world import SMOLLM2, START

VALUES = ROOT / "charts" / "slm-operator" / "values.yaml"


def planned(example: Path) -> Rehearsal:
    world = world_of(example)
    resource = {key: value for key, value in world.resource.items() if key != "status"}
    return rehearse(
        resource, nodes=world.snapshot.nodes, settings=SETTINGS, now=START, known=lambda _: SMOLLM2
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_plan_is_what_the_operator_does(example: Path) -> None:
    world, done = world_of(example), planned(example)
    assert not done.unread
    # A revision is named by all that its pods are made of.
    assert {ref for ref in done.children if ref.kind != "Job"} == {
        ref for ref in world.children if ref.kind != "Job"
    }
    for part in ("placement", "endpoint", "keySecret"):
        assert done.decision.status.get(part) == world.status.get(part), part
    memory = done.decision.status["memory"]
    assert memory.items() <= world.status["memory"].items()
    assert done.decision.status["model"]["source"] == world.status["model"]["source"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_command_says_so(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = tmp_path / "nodes.json"
    nodes.write_text(json.dumps({"items": [node_document("8Gi")]}))
    facts = tmp_path / "facts.json"
    facts.write_text(SMOLLM2.to_json())
    told: dict[str, Any] = yaml.safe_load(example.read_text())
    wanted = [
        "plan",
        "-f",
        str(example),
        "--nodes",
        str(nodes),
        "--values",
        str(VALUES),
        "--facts",
        str(facts),
    ]
    assert main([*wanted, "-o", "json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert (plan["name"], plan["fits"], plan["class"]) == (told["metadata"]["name"], True, "cpu")
    assert plan["hosts"]
    assert plan["notes"] == []


@pytest.mark.parametrize(
    "spec", [None, "text", [1], {}, {"model": "text"}, {"model": {"source": 7}}, {"model": {"mirrors": [{}]}}]
)
def test_a_manifest_that_cant_be_read_is_a_sentence(
    spec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    manifest = {"apiVersion": "slm-operator.io/v1alpha1", "kind": "SLMDeployment", "metadata": {"name": "a"}}
    file.write_text(yaml.safe_dump({**manifest, "spec": spec}))
    assert main(["plan", "-f", str(file), "--offline"]) == 1
    assert "SpecInvalid" in capsys.readouterr().out


def node_document(memory: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "node-1",
            "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        },
        "status": {
            "allocatable": {"memory": memory, "ephemeral-storage": "100Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
