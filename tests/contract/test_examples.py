"""Every example, decided and rendered: golden files that a reviewer reads, and a runtime that understands them."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from slm_contract import places
from slm_contract.config import RuntimeConfig
from slm_operator.crd.schema import crd
from slm_operator.settings import FetchSettings, Settings
from slm_operator.snapshot import Create, Document
from tests.unit.operator_core.world import CPU, GPU, NPU, World, gpu_node, node

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SETTINGS = Settings(
    runtime_image="registry.example/slm-runtime:0.1.0",
    classes=(NPU, GPU, CPU),
    fetch=FetchSettings(ca_bundle="-----BEGIN CERTIFICATE-----\nof the site\n-----END CERTIFICATE-----\n"),
)


@cache
def world_of(example: Path) -> World:
    """The example in a cluster with a plain node and one with a GPU, all its Jobs done."""
    document = yaml.safe_load(example.read_text())
    world = World(
        document["spec"],
        name=document["metadata"]["name"],
        settings=SETTINGS,
        nodes=(node(memory="8Gi"), gpu_node()),
        monitoring=True,
    )
    world.settle()
    for purpose in ("inspect", "pull"):
        if any(f"-{purpose}-" in ref.name for ref in world.children):
            world.finish_job(purpose)
            world.settle()
    world.run_pods()
    world.settle()
    return world


def rendered(example: Path) -> str:
    """All objects that the operator makes for an example, the status last."""
    world = world_of(example)
    intents: list[Any] = []
    for _, child in sorted(world.children.items()):
        document = dict(child)
        document.pop("status", None)
        document["metadata"] = {
            key: value
            for key, value in child["metadata"].items()
            if key not in {"uid", "resourceVersion", "generation", "managedFields"}
        }
        if document["kind"] == "ControllerRevision":
            document["data"] = {key: each for key, each in document["data"].items() if key != "template"}
        intents.append(document)
    intents += [world.secrets[name] for name in sorted(world.secrets)]
    intents.append({"status": world.status})
    return yaml.safe_dump_all(intents, sort_keys=False, width=120)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_what_its_golden_file_says(example: Path) -> None:
    golden = GOLDEN / f"{example.stem}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(rendered(example))
    assert rendered(example) == golden.read_text(), "read the difference, then run with UPDATE_GOLDEN=1"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_against_the_schema(example: Path) -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    document = yaml.safe_load(example.read_text())
    jsonschema.validate(document, _closed(schema))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_runtime_understands_what_it_is_told(example: Path) -> None:
    world = world_of(example)
    template = world.deployment["spec"]["template"]["spec"]
    for container in (*template["initContainers"], *template["containers"]):
        told = next(each["value"] for each in container["env"] if each["name"] == places.CONFIG_ENV)
        config = RuntimeConfig.model_validate_json(told)
        assert config.model.source == world.resource["spec"]["model"]["source"]
        assert config.grace_seconds < template["terminationGracePeriodSeconds"]
        assert RuntimeConfig.model_validate_json(config.to_json()) == config


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_pods_meet_pod_security_restricted(example: Path) -> None:
    for template in _templates(world_of(example)):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(pod)
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= {
                "emptyDir",
                "secret",
                "configMap",
                "persistentVolumeClaim",
                "projected",
            }
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
            assert "cpu" in container["resources"]["requests"]
            assert not any("secretKeyRef" in str(variable) for variable in container["env"])
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert "host" not in container.get(probe, {}).get("httpGet", {})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_serving_containers_see_models_read_only_and_no_credentials(example: Path) -> None:
    (serve,) = world_of(example).deployment["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in serve["volumeMounts"]}
    assert mounts[places.MODEL_DIR]["readOnly"] is True
    assert places.CREDENTIALS_DIR not in mounts
    assert serve["livenessProbe"]["httpGet"] != serve["readinessProbe"]["httpGet"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_selector_says_nothing_of_model_or_hardware(example: Path) -> None:
    deployment = world_of(example).deployment
    chosen = deployment["spec"]["selector"]["matchLabels"]
    assert set(chosen) == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
    }
    assert chosen.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def _templates(world: World) -> list[Document]:
    jobs = [
        step.document["spec"]["template"]
        for step in World(dict(world.resource["spec"]), settings=SETTINGS).decide().plan.steps
        if isinstance(step, Create) and step.ref.kind == "Job"
    ]
    return [world.deployment["spec"]["template"], *jobs]


def _closed(schema: Any) -> Any:
    """The schema as the API server reads it under strict field validation: nothing but the fields it has."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        result["additionalProperties"] = False
    return result
