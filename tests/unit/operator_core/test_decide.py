"""The core's promises over whole lives of an SLMDeployment: what exists in the end, and that it then rests."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_contract.config import RuntimeConfig
from slm_operator.nodes import Node
from slm_operator.settings import EnvVar, FetchSettings
from slm_operator.snapshot import ChildRef, Create
from tests.unit.operator_core.world import (
    CPU,
    GIVEN,
    GPU,
    SETTINGS,
    SMOLLM2,
    World,
    config_of,
    gpu_node,
    node,
    reasons,
    spec,
    take,
)

RESOURCES = st.sampled_from(
    [None, GIVEN, {"requests": {"memory": "1024Mi", "cpu": 1}}, {"limits": {"memory": "2G"}}]
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "resources": RESOURCES,
        "replicas": st.integers(0, 3),
        "suspend": st.booleans(),
        "runtime": st.fixed_dictionaries(
            {},
            optional={
                "contextLength": st.sampled_from([512, 2048, 8192]),
                "parallel": st.integers(1, 8),
                "env": st.sampled_from([[], [{"name": "A", "value": ""}], [{"name": "A", "value": "1"}]]),
            },
        ),
        "hardware": st.fixed_dictionaries(
            {"preference": st.sampled_from([["gpu", "cpu"], ["npu", "cpu"], ["cpu"], ["gpu"], ["none"]])},
            optional={"tolerations": st.just([{"key": "a", "operator": "Exists"}])},
        ),
        "cache": st.sampled_from(
            [{}, {"mode": "PVC", "size": "1024Mi"}, {"claimName": "shared"}, {"size": "2048Mi"}]
        ),
        "auth": st.sampled_from([{"mode": "None"}, {"secretRef": {"name": "mine"}}]),
        "observability": st.just({"serviceMonitor": {"enabled": True}}),
    },
).map(lambda changes: {key: value for key, value in spec(**changes).items() if value is not None})


@given(SPECS, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_it_comes_to_rest_at_every_step_of_its_life(
    wanted: dict[str, Any], monitoring: bool, ready: bool
) -> None:
    world = World(wanted, nodes=(node(), gpu_node()), monitoring=monitoring)
    world.settle()
    for purpose in ("inspect", "pull"):
        if any(f"-{purpose}-" in ref.name for ref in world.children):
            world.finish_job(purpose)
            world.settle()
    if ChildRef("Deployment", "smollm2") in world.children:
        world.run_pods(ready=ready)
        world.settle()
        available = world.condition("Available")
        ready_replicas = world.deployment["status"]["readyReplicas"]
        assert available is not None
        assert (available["status"] == "True") == (ready_replicas >= 1)
        if ready:
            assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    assert world.status["observedGeneration"] == world.resource["metadata"]["generation"]
    assert world.decide() == world.decide()


def test_a_create_with_resources_given_is_four_children_and_two_statuses() -> None:
    world = World(spec(resources=GIVEN))
    statuses = []
    decision = world.reconcile()
    kinds = [step.ref.kind for step in decision.plan.steps]
    assert kinds == ["Secret", "ControllerRevision", "Deployment", "Service"]
    assert all(isinstance(step, Create) for step in decision.plan.steps)
    statuses.append(copy.deepcopy(world.status))
    for step in range(4):
        world.deployment["status"] = {
            "observedGeneration": 1,
            "replicas": min(step, 1),
            "updatedReplicas": min(step, 1),
        }
        world.wait(seconds=1)
        assert not world.reconcile().plan
        statuses.append(copy.deepcopy(world.status))
    world.run_pods(facts=None)
    world.wait(seconds=1)
    assert not world.reconcile().plan
    statuses.append(copy.deepcopy(world.status))
    different = [status for status, before in zip(statuses[1:], statuses, strict=False) if status != before]
    assert len(different) == 1
    assert reasons(world.status) == ["Serving"]


def test_an_edit_without_a_new_generation_does_nothing() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.status)
    world.resource["metadata"]["labels"] = {"team": "a"}
    world.wait(hours=1)
    assert not world.reconcile().plan
    assert world.status == before


def test_a_new_generation_without_effect_only_says_that_it_was_seen() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    world.edit(rollout={"upgrade": "OnSpecChange"})
    assert not world.reconcile().plan
    assert world.status["observedGeneration"] == 2
    assert reasons(world.status) == ["Serving"]


def test_the_header_is_read_by_a_job_first_and_the_job_goes() -> None:
    world = World(spec(replicas=2))
    world.reconcile()
    assert world.kinds() == ["Job", "PodDisruptionBudget", "Service"]
    assert reasons(world.status) == ["Inspecting"]
    world.finish_job("inspect")
    world.settle()
    assert world.kinds() == ["Deployment", "PodDisruptionBudget", "Service"]
    assert RuntimeConfig.model_validate_json(config_of(world.deployment)).context_length == 8192
    world.pods = []
    world.settle()
    world.run_pods()
    world.settle()
    assert world.status["display"] == {"model": "smollm2 Q4_1", "ready": "2/2"}
    assert world.status["memory"]["explanation"].startswith(
        "weights 92 MiB + KV cache 720 MiB (4 x 8192 tokens, f16)"
    )


def test_a_new_model_leaves_the_old_one_serving_until_its_header_is_known() -> None:
    world = World(spec())
    world.settle()
    world.finish_job("inspect")
    world.settle()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.deployment["spec"])
    world.edit(model={"source": "https://host/other.gguf"})
    world.settle()
    assert world.deployment["spec"] == before
    assert reasons(world.status, ("Available", "Ready")) == ["Inspecting", "ReplicasReady"]
    world.finish_job("inspect", SMOLLM2.model_copy(update={"file_name": "other.gguf"}))
    world.settle()
    assert "other.gguf" in config_of(world.deployment)
    assert world.kinds() == ["Deployment", "Service"]


def test_an_operator_upgrade_rolls_no_pod() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.deployment["spec"]["template"])
    world.settings = SETTINGS.model_copy(
        update={
            "runtime_image": "registry/slm-runtime:2",
            "fetch": FetchSettings(env=(EnvVar(name="A", value="b"),)),
        }
    )
    # Another version rendered it otherwise: as if a field of the template had been dropped since.
    world.deployment["spec"]["template"]["spec"]["priorityClassName"] = before["spec"][
        "priorityClassName"
    ] = "old"
    world.settle()
    assert world.deployment["spec"]["template"] == before
    world.edit(runtime={"parallel": 2})
    world.settle()
    (container,) = world.deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/slm-runtime:2"


def test_upgrade_auto_takes_a_new_image_at_once() -> None:
    world = World(spec(resources=GIVEN, rollout={"upgrade": "Auto"}))
    world.settle()
    world.run_pods()
    world.settle()
    world.settings = SETTINGS.model_copy(update={"runtime_image": "registry/slm-runtime:2"})
    world.settle()
    (container,) = world.deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/slm-runtime:2"


@pytest.mark.parametrize("upgrade", ["OnSpecChange", "Auto"])
def test_a_changed_class_reaches_running_models_by_consent(upgrade: str) -> None:
    world = World(spec(resources=GIVEN, rollout={"upgrade": upgrade}))
    world.settle()
    world.run_pods()
    world.settle()
    labelled = CPU.model_copy(update={"node_selector": {"pool": "models"}})
    world.settings = SETTINGS.model_copy(
        update={"runtime_image": "registry/slm-runtime:2", "classes": (labelled,)}
    )
    before = copy.deepcopy(world.deployment["spec"]["template"])
    world.may_upgrade = False
    world.settle()
    assert world.deployment["spec"]["template"] == before, "others come first"
    world.may_upgrade = True
    world.settle()
    if upgrade == "OnSpecChange":
        assert world.deployment["spec"]["template"] == before
        world.edit(runtime={"parallel": 2})
        world.settle()
    template = world.deployment["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"pool": "models"}
    assert template["containers"][0]["image"] == "registry/slm-runtime:2"


def test_a_changed_site_repairs_what_fails_and_only_that() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods(ready=False)
    world.fail("fetch", "", exit_code=21)
    world.settle()
    world.settings = SETTINGS.model_copy(
        update={"fetch": FetchSettings(env=(EnvVar(name="PIP_INDEX_URL", value="https://index"),))}
    )
    world.settle()
    (fetch,) = world.deployment["spec"]["template"]["spec"]["initContainers"]
    assert {"name": "PIP_INDEX_URL", "value": "https://index"} in fetch["env"]


def test_a_hand_on_our_fields_is_put_back_and_others_are_left() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    template = world.deployment["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "evil"
    take(world.deployment, "spec.template.spec.containers", by="kubectl-edit")
    template["metadata"].setdefault("annotations", {})["kubectl.kubernetes.io/restartedAt"] = "now"
    decision = world.reconcile()
    assert decision.plan.steps
    assert world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/slm-runtime:1"
    world.deployment["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = (
        "now"
    )
    assert not world.decide().plan


def test_who_keeps_changing_our_fields_is_named_and_left_alone_for_a_while() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    take(world.deployment, "spec.replicas", by="their-autoscaler")
    assert world.decide().contested == (ChildRef("Deployment", "smollm2"),)
    world.yielding = frozenset(world.decide().contested)
    world.settle()
    contended = world.condition("Contended")
    assert contended is not None
    assert "their-autoscaler keeps changing spec.replicas" in contended["message"]
    assert reasons(world.status) == ["FieldsTaken"]
    world.yielding = frozenset()
    world.settle()
    assert world.condition("Contended") is None
    assert reasons(world.status) == ["Serving"]


def test_what_a_webhook_puts_in_place_of_ours_is_told_and_not_fought() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.deployment["spec"]["template"]["spec"]["initContainers"][0]["image"] = "mirror/slm-runtime:1"
    world.run_pods()
    world.settle()
    assert reasons(world.status, ("Ready", "Contended")) == ["Serving", "RewrittenAtAdmission"]


def test_suspend_takes_the_pods_away_and_nothing_else() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    world.edit(suspend=True)
    world.settle()
    assert world.deployment["spec"]["replicas"] == 0
    world.run_pods()
    world.settle()
    assert world.kinds() == ["Deployment", "Service"]
    assert reasons(world.status) == ["Suspended"]


def test_a_claim_is_filled_by_a_job_before_pods_are_made() -> None:
    world = World(spec(cache={"mode": "PVC", "size": "2Gi"}))
    world.settle()
    assert world.kinds() == ["Job", "PersistentVolumeClaim", "Service"]
    assert reasons(world.status) == ["Inspecting"]
    world.finish_job("inspect")
    world.settle()
    assert world.kinds() == ["Job", "Job", "PersistentVolumeClaim", "Service"], "the header stays known"
    assert reasons(world.status) == ["Fetching"]
    world.finish_job("pull")
    world.settle()
    assert world.kinds() == ["Deployment", "PersistentVolumeClaim", "Service"]
    assert world.deployment["spec"]["strategy"] == {"type": "Recreate"}
    (models, *_) = world.deployment["spec"]["template"]["spec"]["volumes"]
    assert models == {"name": "models", "persistentVolumeClaim": {"claimName": "smollm2-models"}}
    world.pods = []
    world.edit(runtime={"parallel": 2})
    world.settle()
    assert '"parallel":2' in config_of(world.deployment), "what is in the claim isn't fetched again"


def test_what_is_no_longer_asked_for_is_deleted() -> None:
    world = World(spec(resources=GIVEN, observability={"serviceMonitor": {"enabled": True}}), monitoring=True)
    world.settle()
    assert world.kinds() == ["Deployment", "Service", "ServiceMonitor"]
    world.edit(observability={"serviceMonitor": {"enabled": False}})
    world.settle()
    assert world.kinds() == ["Deployment", "Service"]


def test_a_service_monitor_that_cannot_be_made_is_said() -> None:
    world = World(spec(resources=GIVEN, observability={"serviceMonitor": {"enabled": True}}))
    world.settle()
    assert reasons(world.status, ("MonitoringReady",)) == ["KindMissing"]
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["Serving"]


def test_somebody_elses_object_of_the_same_name_is_never_touched() -> None:
    world = World(spec(resources=GIVEN))
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "smollm2", "namespace": "demo", "uid": "x", "resourceVersion": "1"},
        "spec": {"ports": [{"port": 1}]},
    }
    world.children[ChildRef("Service", "smollm2")] = copy.deepcopy(foreign)
    world.settle()
    assert world.children[ChildRef("Service", "smollm2")] == foreign
    assert reasons(world.status, ("Ready", "Stalled")) == ["NameTaken", "NameTaken"]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (spec(model={"source": "ftp://a/b"}), "SourceInvalid"),
        (spec(model={"source": "pypi://a/b"}), "SourceInvalid"),
        (spec(runtime={"image": "elsewhere/image"}), "ImageNotAllowed"),
        (spec(hardware={"preference": ["tpu"]}), "UnknownHardware"),
        (spec(replicas="many"), "SpecInvalid"),
    ],
)
def test_a_spec_that_cannot_work_is_stalled_with_a_remedy(wanted: dict[str, Any], reason: str) -> None:
    world = World(wanted)
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled")) == [reason, reason]
    assert world.status["lastFailure"]["reason"] == reason
    assert world.status["lastFailure"]["remedy"]
    assert "Deployment" not in world.kinds()


def test_a_source_outside_the_allowed_is_refused() -> None:
    world = World(
        spec(),
        settings=SETTINGS.model_copy(
            update={"fetch": FetchSettings(allowed_sources=("https://models.corp/",))}
        ),
    )
    world.settle()
    assert reasons(world.status) == ["SourceNotAllowed"]


def test_a_spec_that_is_corrected_forgets_what_was_wrong() -> None:
    world = World(spec(model={"source": "ftp://a/b"}, resources=GIVEN))
    world.settle()
    world.edit(model=spec()["model"])
    world.settle()
    world.run_pods()
    world.settle()
    assert world.condition("Stalled") is None
    assert "lastFailure" not in world.status


def test_nodes_that_come_and_go_change_nothing_that_was_decided() -> None:
    world = World(spec(resources=GIVEN, hardware={"preference": ["gpu", "cpu"]}))
    world.settle()
    world.run_pods()
    world.settle()
    nodes: tuple[tuple[Node, ...], ...] = ((gpu_node(), node()), (), (node("b", memory="1Gi"),))
    for world.nodes in nodes:
        before = copy.deepcopy(world.status)
        assert not world.reconcile().plan
        assert world.status == before
    assert world.status["placement"]["selected"] == CPU.name
    assert world.status["placement"]["rejected"] == [
        {"hardware": GPU.name, "reason": "no node offers nvidia.com/gpu"}
    ]


def test_the_key_is_made_when_a_deployment_without_keys_comes_to_want_one() -> None:
    world = World(spec(resources=GIVEN, auth={"mode": "None"}))
    world.settle()
    assert not world.secrets
    world.edit(auth={"mode": "APIKey"})
    world.settle()
    assert list(world.secrets) == ["smollm2-api-key"]
    assert world.secrets["smollm2-api-key"]["stringData"] == {
        "api-key": "a-generated-key",
        "owner-uid-of-cr": "",
    }


def test_a_bad_edit_leaves_the_old_pods_serving_and_says_so() -> None:
    world = World(spec(resources=GIVEN))
    world.settle()
    world.run_pods()
    world.settle()
    before = copy.deepcopy(world.deployment)
    world.edit(model={"source": "ftp://a/b"})
    world.settle()
    assert world.deployment == before
    assert reasons(world.status, ("Ready", "Stalled", "Available")) == [
        "SourceInvalid",
        "SourceInvalid",
        "ReplicasReady",
    ]
