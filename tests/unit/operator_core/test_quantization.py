"""`spec.model.quantization`: what it will be is known before pods are, and what it is made of has room."""

import json
from typing import Any

import pytest

from slm_contract.report import (
    Download,
    Failure,
    FailureReason,
    FetchReport,
    ModelFacts,
    Origin,
    RuntimeReport,
)
from slm_contract.source import SourcePin
from slm_operator.crd.quantities import MIB, parse_quantity
from slm_operator.model.known import runtime_config
from slm_operator.pod.volumes import OWN_FILES, TMP_SIZE
from tests.unit.operator_core.test_cache import folder, told
from tests.unit.operator_core.world import GIVEN, SMOLLM2, SOURCE, World, config_of, gpu_node, node, spec

PIN = SourcePin(revision="c0ffee", digest="1" * 64)
ORIGIN = Origin(quantization="F16", size_bytes=270 * MIB)
EIGHT = SMOLLM2.model_copy(
    update={
        "quantization": "Q8_0",
        "size_bytes": 145 * MIB,
        "weights_bytes": 143 * MIB,
        "origin": ORIGIN,
        "pin": PIN,
    }
)
"""As it is foreseen."""
MADE = EIGHT.model_copy(update={"sha256": "b" * 64, "origin": ORIGIN.model_copy(update={"sha256": "a" * 64})})
"""As it was derived."""
SIXTEEN = SMOLLM2.model_copy(
    update={
        "quantization": "F16",
        "size_bytes": 270 * MIB,
        "weights_bytes": 268 * MIB,
        "pin": PIN,
        "sha256": "a" * 64,
    }
)
MODEL = {"source": "https://host/m-f16.gguf"}
ASKED = {**MODEL, "quantization": "Q8_0"}
CLAIM = {"mode": "PVC", "size": "2Gi"}


def inspected(model: dict[str, Any] = ASKED, facts: ModelFacts = EIGHT, **changes: Any) -> World:
    world = World(spec(model=model, **changes))
    world.settle()
    world.finish_job("inspect", facts)
    world.settle()
    return world


def pod(world: World) -> dict[str, Any]:
    template: dict[str, Any] = world.deployment["spec"]["template"]["spec"]
    return template


def quantity(container: dict[str, Any], name: str, kind: str = "requests") -> int:
    return int(parse_quantity(container["resources"][kind][name]))


def model_volume(world: World) -> int:
    (found,) = (each for each in pod(world)["volumes"] if each["name"] == "models")
    return int(parse_quantity(found["emptyDir"]["sizeLimit"]))


def asked_for(document: dict[str, Any]) -> str | None:
    config = runtime_config(document["spec"]["template"]["spec"])
    assert config is not None
    return config.model.quantization


@pytest.mark.parametrize("source", [MODEL["source"], SOURCE])
def test_it_is_looked_at_first_even_where_memory_is_given(source: str) -> None:
    world = World(spec(model={"source": source, "quantization": "Q8_0"}, resources=GIVEN))
    world.settle()
    assert asked_for(world.job("inspect")) == "Q8_0"
    assert "Deployment" not in world.kinds()


def test_pods_have_the_memory_of_what_they_serve() -> None:
    world, sixteen = inspected(), inspected(MODEL, SIXTEEN)
    assert asked_for(world.deployment) == "Q8_0"
    (serve,), (larger,) = pod(world)["containers"], pod(sixteen)["containers"]
    assert quantity(larger, "memory") - quantity(serve, "memory") > 120 * MIB
    assert world.status["memory"]["weights"] == 143 * MIB


def test_for_a_moment_there_is_room_for_both() -> None:
    world = inspected()
    (fetch,) = pod(world)["initContainers"]
    both = 145 * MIB + 270 * MIB
    room = model_volume(world)
    assert both < room < 1.3 * both
    assert quantity(fetch, "ephemeral-storage") == room + TMP_SIZE
    assert quantity(fetch, "memory", "limits") == 512 * MIB
    (plain,) = pod(inspected(MODEL, SIXTEEN))["initContainers"]
    assert quantity(plain, "memory", "limits") == 256 * MIB


def test_what_a_claim_has_is_not_copied_and_what_is_derived_of_it_has_room() -> None:
    world = inspected({"source": "pvc://models/m-f16.gguf", "quantization": "Q8_0"})
    assert 145 * MIB < model_volume(world) < 270 * MIB
    (fetch,) = pod(world)["initContainers"]
    assert quantity(fetch, "ephemeral-storage") == model_volume(world) + TMP_SIZE
    linked = inspected({"source": "pvc://models/m-f16.gguf"}, SIXTEEN)
    assert model_volume(linked) == OWN_FILES


def test_a_roll_out_waits_for_what_is_fetched_and_derived() -> None:
    deadlines = [
        world.deployment["spec"]["progressDeadlineSeconds"]
        for world in (
            inspected(),
            inspected(MODEL, SIXTEEN),
            inspected(MODEL, EIGHT.model_copy(update={"origin": None})),
        )
    ]
    assert deadlines[0] > deadlines[1] > deadlines[2]


def test_a_claim_is_filled_by_the_job_that_derives_it() -> None:
    world = inspected(cache=CLAIM)
    job = world.job("pull")
    assert asked_for(job) == "Q8_0"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert quantity(container, "memory", "limits") == 512 * MIB
    assert "Deployment" not in world.kinds()
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["message"] == "fetching m-f16.gguf into the claim, and deriving Q8_0 of it"
    world.finish_job("pull", MADE)
    world.settle()
    assert folder(world.deployment) == folder(job)
    assert "Job" not in world.kinds()


def test_another_quantization_is_another_revision_beside_the_one_that_serves() -> None:
    world = inspected(MODEL, SIXTEEN, cache=CLAIM)
    world.finish_job("pull", SIXTEEN)
    world.settle()
    world.run_pods(facts=SIXTEEN)
    world.settle()
    before = config_of(world.deployment)
    world.edit(model=ASKED)
    world.settle()
    assert config_of(world.deployment) == before
    world.finish_job("inspect", EIGHT)
    world.settle()
    retention = told(world)
    assert retention is not None
    serving, derived = folder(world.deployment), folder(world.job("pull"))
    assert serving != derived
    assert {serving, derived} <= set(retention.keep), "both are of the same bytes"
    world.finish_job("pull", MADE)
    world.settle()
    assert asked_for(world.deployment) == "Q8_0"


def test_the_status_tells_what_is_served_and_what_it_is_made_of() -> None:
    world = inspected({**ASKED, "sha256": "a" * 64})
    assert world.status["model"]["quantization"] == "Q8_0"
    assert world.status["model"]["sizeBytes"] == 145 * MIB
    assert world.status["model"]["origin"] == {"quantization": "F16", "sizeBytes": 270 * MIB}
    assert "sha256" not in world.status["model"], "what the spec gives is the source's"
    world.run_pods(facts=MADE)
    world.settle()
    assert world.status["model"]["sha256"] == "b" * 64
    assert world.status["model"]["origin"]["sha256"] == "a" * 64
    assert world.status["display"]["model"] == "smollm2 Q8_0"


@pytest.mark.parametrize(("before", "after"), [(MODEL, ASKED), (ASKED, MODEL)], ids=["derived", "as it is"])
def test_of_another_format_the_status_knows_nothing_yet(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    facts = {str(MODEL): SIXTEEN, str(ASKED): MADE}
    world = inspected(before, facts[str(before)])
    world.run_pods(facts=facts[str(before)])
    world.settle()
    old = world.status["model"]["sha256"]
    world.edit(model=after)
    world.settle()
    world.finish_job("inspect", facts[str(after)].model_copy(update={"sha256": None}))
    world.settle()
    assert world.status["model"].get("sha256") != old
    assert ("origin" in world.status["model"]) == (after == ASKED)


def test_it_says_that_it_derives() -> None:
    world = inspected()
    world.run_pods(ready=False, facts=None)
    download = Download(state="Quantizing", bytes_done=MIB, bytes_total=10 * MIB)
    world.hear(RuntimeReport(command="fetch", phase="Fetching", download=download))
    world.settle()
    ready = world.condition("Ready")
    assert ready is not None
    assert (ready["reason"], ready["message"]) == ("Quantizing", "deriving Q8_0 of m-f16.gguf")
    assert world.condition("ModelReady")["reason"] == "Quantizing"  # type: ignore[index]
    assert (world.status["download"]["state"], world.status["download"]["percent"]) == ("Quantizing", 10)


@pytest.mark.parametrize(
    "reason", [FailureReason.UNSUPPORTED_QUANTIZATION, FailureReason.QUANTIZATION_FAILED]
)
def test_what_cannot_be_derived_is_told_before_a_pod_exists(reason: FailureReason) -> None:
    world = World(spec(model=ASKED))
    world.settle()
    failure = Failure(
        reason=reason, message="m.gguf is quantized already", remedy="name another", permanent=True
    )
    world.finish_job("inspect")
    world.job("inspect").pop("status")
    status = world.pods[0]["status"]
    ended = status["containerStatuses"][0]["state"]["terminated"]
    ended |= {"exitCode": 20, "message": FetchReport(command="inspect", failure=failure).to_json()}
    status["phase"] = "Running"
    world.settle()
    assert "Deployment" not in world.kinds()
    ready = world.condition("ModelReady")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert "m.gguf is quantized already" in ready["message"]


def test_an_image_that_knows_of_no_quantization_serves_nothing_else_in_its_place() -> None:
    world = inspected(ASKED, SIXTEEN)
    assert "Deployment" not in world.kinds()
    placed = world.condition("Placed")
    assert placed is not None
    assert "its runtime image is of an earlier version, which derives no Q8_0 of F16" in placed["message"]


def test_a_variant_says_for_itself_what_it_is_served_in() -> None:
    variants = [{"hardware": "gpu", "source": "https://host/m-bf16.gguf", "quantization": "Q4_K_M"}]
    cache_of = {"model": {**ASKED, "variants": variants}, "hardware": {"preference": ["gpu", "cpu"]}}
    world = World(spec(**cache_of), nodes=(node(), gpu_node()))
    world.settle()
    assert asked_for(world.job("inspect")) == "Q4_K_M"
    plain = [{"hardware": "gpu", "source": "https://host/m-awq.gguf"}]
    world = World(
        spec(model={**ASKED, "variants": plain}, hardware={"preference": ["gpu", "cpu"]}),
        nodes=(node(), gpu_node()),
    )
    world.settle()
    assert asked_for(world.job("inspect")) is None


def test_a_source_that_moved_is_looked_at_for_the_same_format() -> None:
    world = inspected({**ASKED, "refreshPolicy": "OnChange"})
    world.run_pods(facts=MADE)
    world.settle()
    latest = SourcePin(revision="decaf0", digest="2" * 64)
    for each in world.pods:
        for status in each["status"]["initContainerStatuses"]:
            ended = status["state"]["terminated"]
            report = FetchReport.model_validate_json(ended["message"])
            ended["message"] = report.model_copy(update={"latest": latest}).to_json()
    world.settle()
    assert asked_for(world.job("inspect")) == "Q8_0"
    before = folder(world.deployment)
    world.finish_job("inspect", EIGHT.model_copy(update={"pin": latest}))
    world.settle()
    assert json.loads(config_of(world.deployment))["model"]["pin"]["digest"] == "2" * 64
    assert folder(world.deployment) != before
