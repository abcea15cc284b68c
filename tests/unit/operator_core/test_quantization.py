"""`spec.model.quantization`: what it will be is known before pods are, and what it is made of has room."""

import json
from typing import Any

import pytest

from slm_contract.config import ModelConfig, Quantization
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
from slm_operator.crd.resource import parse_resource
from slm_operator.model.formats import BITS
from slm_operator.model.known import runtime_config
from slm_operator.placement.choose import artifact_for
from slm_operator.pod.volumes import OWN_FILES, TMP_SIZE
from slm_operator.settings import FAST_ON_CPUS, CatalogEntry, CatalogVariant
from tests.unit.operator_core.test_cache import folder, told
from tests.unit.operator_core.world import (
    CPU,
    GIVEN,
    GPU,
    SETTINGS,
    SMOLLM2,
    SOURCE,
    World,
    config_of,
    gpu_node,
    node,
    spec,
)

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


# Auto.


AUTO = {"source": "hf://org/m-GGUF", "quantization": "Auto"}
CHOICE = ("Q8_0", "Q4_K_M", "Q3_K_M")
CPU_CHOOSES = CPU.model_copy(update={"quantizations": tuple(map(Quantization, CHOICE))})
SITE = SETTINGS.model_copy(update={"classes": (CPU_CHOOSES,)})
VARIANT = "m-Q8_0.gguf"


def offered(name: str, weights: int, **changes: Any) -> ModelFacts:
    """What a Job says of the format that it has chosen."""
    told = {
        "quantization": name,
        "weights_bytes": weights,
        "size_bytes": weights + MIB,
        "pin": PIN.model_copy(update={"path": f"m-{name}.gguf"}),
        "offered": ("F16", "Q4_K_M", "Q8_0"),
    }
    return SMOLLM2.model_copy(update={**told, **changes})


def choosing(*found: ModelFacts, settings: Any = SITE, model: Any = AUTO, **more: Any) -> World:
    """A world in which one Job after the other has read a header."""
    nodes = more.pop("nodes", (node(),))
    world = World(spec(model=model, hardware={"preference": ["cpu"]}, **more), settings=settings, nodes=nodes)
    world.settle()
    for each in found:
        world.finish_inspections({model["source"]: each})
        world.settle()
    return world


def under_way(world: World) -> ModelConfig:
    """What is asked for now, the earlier answers being kept."""
    (job,) = (each for ref, each in world.children.items() if ref.kind == "Job" and "status" not in each)
    return model_of(job)


def model_of(document: dict[str, Any]) -> ModelConfig:
    config = runtime_config(document["spec"]["template"]["spec"])
    assert config is not None
    return config.model


def reason(world: World) -> str:
    return str(world.status["model"]["quantizationReason"])


def test_auto_is_asked_of_the_source_before_pods_are_even_where_memory_is_given() -> None:
    world = choosing(resources=GIVEN)
    asked = model_of(world.job("inspect"))
    assert (asked.quantization, asked.auto) == (None, CPU_CHOOSES.quantizations)
    assert "Deployment" not in world.kinds()


def test_what_was_chosen_is_pinned_by_file_digest_and_revision_and_told() -> None:
    world = choosing(offered("Q8_0", 143 * MIB))
    model = model_of(world.deployment)
    assert model.quantization == "Q8_0"
    assert model.pin == SourcePin(revision="c0ffee", digest="1" * 64, path=VARIANT)
    status = world.status["model"]
    assert (status["quantization"], status["resolved"], status["revision"]) == ("Q8_0", VARIANT, "c0ffee")
    assert reason(world) == (
        "Auto chose Q8_0: the source has it (it also has F16, Q4_K_M); the first choice of the class cpu"
    )
    assert world.status["memory"]["weights"] == 143 * MIB


def test_a_choice_that_is_not_the_first_says_what_it_is_in_place_of() -> None:
    derived = choosing(offered("Q4_K_M", 90 * MIB, origin=ORIGIN, offered=("F16",)))
    assert reason(derived) == (
        "Auto chose Q4_K_M: derived of the source's F16; what the class cpu would rather have (Q8_0) is neither there nor"
        " can be derived"
    )
    other = choosing(offered("IQ3_XXS", 60 * MIB, offered=("IQ3_XXS",)))
    assert model_of(other.deployment).quantization is None
    assert reason(other) == (
        "Auto serves IQ3_XXS, as the source has it: none of Q8_0, Q4_K_M, Q3_K_M is there or can be derived of it"
    )


def test_what_does_not_fit_gives_way_to_the_next_smaller_and_that_is_told() -> None:
    world = choosing(offered("Q8_0", 6000 * MIB), nodes=(node(memory="4Gi"),))
    assert under_way(world).auto == (Quantization.Q4_K_M, Quantization.Q3_K_M)
    assert "Deployment" not in world.kinds()
    world.finish_inspections({AUTO["source"]: offered("Q4_K_M", 1500 * MIB)})
    world.settle()
    assert model_of(world.deployment).quantization == "Q4_K_M"
    assert "Auto chose Q4_K_M" in reason(world)
    assert "of those that are smaller; Q8_0 doesn't fit: " in reason(world)
    assert "Job" not in world.kinds()


def test_where_nothing_fits_the_smallest_is_told() -> None:
    found = [offered(name, size * MIB) for name, size in (("Q8_0", 9000), ("Q4_K_M", 7000), ("Q3_K_M", 6000))]
    world = choosing(*found, nodes=(node(memory="4Gi"),))
    assert "Deployment" not in world.kinds()
    fits = world.condition("MemoryFits")
    assert fits is not None
    assert (fits["status"], fits["reason"]) == ("False", "DoesNotFit")


def test_what_is_served_for_want_of_a_choice_and_does_not_fit_is_told() -> None:
    """Of its larger format nothing could be derived: another look would find the same."""
    world = choosing(offered("F16", 9000 * MIB, offered=("F16",)), nodes=(node(memory="4Gi"),))
    assert "Deployment" not in world.kinds()
    assert world.condition("MemoryFits")["reason"] == "DoesNotFit"  # type: ignore[index]


def test_memory_that_is_given_is_kept_to_where_a_smaller_format_does() -> None:
    world = choosing(
        offered("Q8_0", 6000 * MIB), offered("Q4_K_M", 200 * MIB), resources={"limits": {"memory": "1Gi"}}
    )
    assert model_of(world.deployment).quantization == "Q4_K_M"


@pytest.mark.parametrize("change", [{"runtime": {"parallel": 2}}, {"replicas": 2}], ids=["pods", "none"])
def test_another_preference_of_the_class_moves_no_model(change: dict[str, Any]) -> None:
    world = choosing(offered("Q8_0", 143 * MIB))
    world.run_pods(facts=offered("Q8_0", 143 * MIB))
    world.settle()
    before, said = model_of(world.deployment), reason(world)
    world.settings = SETTINGS.model_copy(
        update={"classes": (CPU.model_copy(update={"quantizations": (Quantization.Q4_0,)}),)}
    )
    world.settle()
    world.edit(**change)
    world.settle()
    assert "Job" not in world.kinds(), "nothing is asked again"
    assert (model_of(world.deployment), reason(world)) == (before, said)


def test_a_smaller_one_that_was_chosen_stays_when_there_is_more_memory() -> None:
    world = choosing(offered("Q8_0", 6000 * MIB), offered("Q4_K_M", 1500 * MIB), nodes=(node(memory="4Gi"),))
    said = reason(world)
    world.nodes = (node(memory="64Gi"),)
    world.edit(runtime={"parallel": 2})
    world.settle()
    assert (model_of(world.deployment).quantization, reason(world)) == ("Q4_K_M", said)


def test_an_image_that_chooses_nothing_serves_nothing_in_its_place() -> None:
    world = choosing(offered("Q8_0", 143 * MIB, offered=None))
    assert "Deployment" not in world.kinds()
    placed = world.condition("Placed")
    assert placed is not None
    assert "earlier version, which chooses no number format" in placed["message"]


def test_the_catalog_s_entry_of_a_format_is_taken() -> None:
    entry = CatalogEntry(
        source="hf://org/m/m-Q4_K_M.gguf",
        quantization="Q4_K_M",
        license="MIT",
        variants=(
            CatalogVariant(quantization=Quantization.Q8_0, source="hf://org/m/m-Q8_0.gguf", sha256="a" * 64),
            CatalogVariant(hardware="gpu", source="hf://org/m/m-gpu.gguf"),
            CatalogVariant(hardware="gpu", quantization=Quantization.F16, source="hf://org/m/m-F16.gguf"),
        ),
    )

    def source(wanted: str | None, hardware_class: Any = CPU_CHOOSES) -> str:
        model = {"source": "catalog://m", **({} if wanted is None else {"quantization": wanted})}
        resource = parse_resource(World(spec(model=model)).resource)
        return artifact_for(resource, hardware_class, {"m": entry}).source.rpartition("/")[2]

    assert source(None) == "m-Q4_K_M.gguf"
    assert source("Q4_K_M") == "m-Q4_K_M.gguf"
    assert source("Q8_0") == "m-Q8_0.gguf"
    assert source("Auto") == "m-Q8_0.gguf", "the class prefers it"
    assert source("Q6_K") == "m-Q4_K_M.gguf", "what is there says why that can't be"
    assert source("F16") == "m-Q4_K_M.gguf", "that is of another class"
    assert source("F16", GPU) == "m-F16.gguf"
    assert source(None, GPU) == "m-gpu.gguf"


def test_the_catalog_s_smaller_format_is_asked_for_and_kept() -> None:
    eight = CatalogVariant(quantization=Quantization.Q8_0, source="hf://org/m/m-Q8_0.gguf")
    entry = CatalogEntry(
        source="hf://org/m/m-Q4_K_M.gguf", quantization="Q4_K_M", license="MIT", variants=(eight,)
    )
    settings = SITE.model_copy(update={"catalog": {"m": entry}})
    model = {"source": "catalog://m", "quantization": "Auto"}
    world = World(spec(model=model), settings=settings, nodes=(node(memory="4Gi"),))
    world.settle()
    world.finish_inspections({eight.source: offered("Q8_0", 6000 * MIB)})
    world.settle()
    world.finish_inspections({entry.source: offered("Q4_K_M", 1500 * MIB)})
    world.settle()
    before, said = model_of(world.deployment), reason(world)
    assert (before.source, before.quantization) == (entry.source, "Q4_K_M")
    other = CPU.model_copy(update={"quantizations": (Quantization.Q8_0,)})
    world.settings = settings.model_copy(update={"classes": (other,)})
    world.nodes = (node(memory="64Gi"),)
    world.edit(runtime={"parallel": 2})
    world.settle()
    assert (model_of(world.deployment), reason(world)) == (before, said)


def test_every_format_has_its_size() -> None:
    assert set(BITS) >= {each.value for each in Quantization}
    assert set(FAST_ON_CPUS) <= set(Quantization)
