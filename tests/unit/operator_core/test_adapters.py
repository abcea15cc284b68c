"""LoRA adapters: looked at, pinned, fetched and counted as their model is."""

from typing import Any

import pytest

from slm_contract.config import RuntimeConfig
from slm_contract.report import FetchReport, ModelFacts
from slm_contract.retention import Retention
from slm_contract.source import SourcePin
from slm_operator.crd.quantities import parse_quantity
from tests.unit.operator_core.world import GIVEN, NO_MODEL, SMOLLM2, World, config_of, gpu_node, node, spec

MODEL = "https://host/main/model.gguf"
SQL, LAW = "hf://team/sql/sql.gguf", "https://host/law.gguf"
ADAPTERS = [{"name": "sql", "source": SQL}, {"name": "law", "source": LAW, "sha256": "a" * 64, "scale": 0.5}]
ADAPTER = ModelFacts(
    adapter=True,
    file_name="sql.gguf",
    size_bytes=21_000_000,
    architecture="llama",
    weights_bytes=20_000_000,
    **NO_MODEL,
)
PINS = {
    source: SourcePin(revision=None, digest=str(number) * 64) for number, source in enumerate((MODEL, SQL))
}
FACTS = {
    MODEL: SMOLLM2.model_copy(update={"pin": PINS[MODEL]}),
    SQL: ADAPTER.model_copy(update={"pin": PINS[SQL]}),
    LAW: ADAPTER.model_copy(update={"size_bytes": 1_000_000, "weights_bytes": 900_000}),
}


def deployed(adapters: Any = ADAPTERS, facts: dict[str, ModelFacts] = FACTS, **changes: Any) -> World:
    """A world whose sources were looked at."""
    world = World(spec(**{"model": {"source": MODEL, "adapters": adapters}, **changes}))
    world.settle()
    world.finish_inspections(facts)
    world.settle()
    return world


def config(document: Any) -> RuntimeConfig:
    return RuntimeConfig.model_validate_json(config_of(document))


def moves_on(world: World, pin: SourcePin, name: str | None = None) -> None:
    """The source of `sql`, or of the companion of that key, as pods find it that have fetched."""
    name = name or next(each.key for each in config(world.deployment).adapters or () if each.name == "sql")
    for pod in world.pods:
        for status in pod["status"]["initContainerStatuses"]:
            ended = status["state"]["terminated"]
            report = FetchReport.model_validate_json(ended["message"])
            ended["message"] = report.model_copy(update={"moved": {name: pin}}).to_json()


def test_one_whose_source_moved_is_told_and_serves_on() -> None:
    world = deployed()
    world.run_pods(facts=FACTS[MODEL])
    before = config_of(world.deployment)
    moves_on(world, SourcePin(revision="decaf0", digest="9" * 64))
    world.settle()
    told = world.condition("SourceDrifted")
    assert told is not None
    assert told["message"].startswith(
        f"{SQL} stands for decaf0 now, {'1' * 64} was pinned; what was pinned is served"
    )
    assert config_of(world.deployment) == before
    moves_on(world, PINS[SQL])
    world.settle()
    assert world.condition("SourceDrifted") is None


def test_reports_of_earlier_versions_name_them() -> None:
    world = deployed()
    world.run_pods(facts=FACTS[MODEL])
    moves_on(world, SourcePin(revision="decaf0", digest="9" * 64), "sql")
    world.settle()
    assert f"{SQL} stands for decaf0 now" in (world.condition("SourceDrifted") or {})["message"]


def test_one_whose_source_moved_is_followed_where_the_spec_asks_for_it() -> None:
    now = SourcePin(revision="decaf0", digest="9" * 64)
    world = deployed(model={"source": MODEL, "adapters": ADAPTERS, "refreshPolicy": "OnChange"})
    world.run_pods(facts=FACTS[MODEL])
    moves_on(world, now)
    world.settle()
    assert config(world.deployment).model.pin == PINS[MODEL]
    world.finish_inspections({**FACTS, SQL: ADAPTER.model_copy(update={"pin": now})})
    world.settle()
    adapters = config(world.deployment).adapters
    assert adapters is not None
    assert [each.pin for each in adapters] == [now, None]
    assert "Job" not in world.kinds()


def test_each_is_looked_at_before_pods_are_made() -> None:
    world = World(spec(model={"source": MODEL, "adapters": ADAPTERS}))
    world.settle()
    assert world.kinds().count("Job") == 3
    assert "Deployment" not in world.kinds()
    world.finish_inspections(FACTS)
    world.settle()
    assert "Job" not in world.kinds()
    found = config(world.deployment).adapters or ()
    assert [(each.name, each.source, each.scale) for each in found] == [("sql", SQL, 1.0), ("law", LAW, 0.5)]
    assert [each.pin for each in found] == [PINS[SQL], None], "a checksum says it all"


def test_where_memory_is_given_only_those_are_looked_at_that_may_move() -> None:
    world = World(
        spec(model={"source": MODEL, "sha256": "b" * 64, "adapters": ADAPTERS[1:]}, resources=GIVEN)
    )
    world.settle()
    assert "Job" not in world.kinds()
    assert [each.name for each in config(world.deployment).adapters or ()] == ["law"]


def test_their_weights_are_part_of_the_memory() -> None:
    alone, with_adapters = deployed(adapters=[]).status, deployed().status
    assert with_adapters["memory"]["weights"] - alone["memory"]["weights"] == 20_900_000
    requests = [parse_quantity(each["memory"]["request"]) for each in (alone, with_adapters)]
    assert requests[1] - requests[0] >= 20_900_000


def test_status_names_them() -> None:
    world = deployed()
    assert world.status["model"]["adapters"] == [
        {"name": "sql", "source": SQL, "sizeBytes": 21_000_000, "digest": PINS[SQL].digest},
        {"name": "law", "source": LAW, "sizeBytes": 1_000_000, "sha256": "a" * 64},
    ]
    assert "adapters" not in deployed(adapters=[]).status["model"]


def test_they_are_pulled_into_a_claim_with_their_model_and_stay_there() -> None:
    world = deployed(cache={"mode": "PVC", "size": "2Gi"})
    job = world.job("pull")
    assert [each.name for each in config(job).adapters or ()] == ["sql", "law"]
    told = next(
        each["value"]
        for each in job["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "SLM_RETENTION"
    )
    kept = Retention.model_validate_json(told).keep
    assert {each.folder for each in config(job).adapters or ()} <= set(kept)
    world.finish_job("pull", FACTS[MODEL])
    world.settle()
    world.run_pods(facts=FACTS[MODEL])
    world.settle()
    world.edit(model={"source": MODEL, "adapters": [*ADAPTERS, {**ADAPTERS[1], "name": "law-full"}]})
    world.settle()
    assert "Job" not in world.kinds(), "the same file under another name lies there already"
    world.edit(model={"source": MODEL, "adapters": [{"name": "new", "source": "hf://team/new/new.gguf"}]})
    world.settle()
    world.finish_inspections({**FACTS, "hf://team/new/new.gguf": ADAPTER})
    world.settle()
    assert [each.name for each in config(world.job("pull")).adapters or ()] == ["new"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({SQL: SMOLLM2}, "the adapter sql is a model by itself"),
        ({SQL: ADAPTER.model_copy(update={"architecture": "qwen2"})}, "is of a qwen2 model"),
        ({MODEL: ADAPTER}, "names an adapter, and no model"),
    ],
    ids=["a model", "of another architecture", "in a model's place"],
)
def test_what_doesn_t_go_together_is_told_and_no_pods_are_made(
    changed: dict[str, ModelFacts], says: str
) -> None:
    world = deployed(facts={**FACTS, **changed})
    assert "Deployment" not in world.kinds()
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["reason"] == "AdapterMismatch"
    assert says in ready["message"]


def test_they_are_looked_at_once_whatever_class_is_taken() -> None:
    """What is known of them mustn't go with the Job that found it, while another class's model is looked at."""
    large = "https://host/large.gguf"
    world = World(
        spec(
            model={
                "source": MODEL,
                "adapters": ADAPTERS,
                "variants": [{"hardware": "gpu", "source": large}],
            },
            hardware={"preference": ["gpu", "cpu"]},
        ),
        nodes=(gpu_node(), node()),
    )
    world.settle()
    first = {ref for ref in world.children if ref.kind == "Job"}
    world.finish_inspections({**FACTS, large: SMOLLM2.model_copy(update={"weights_bytes": 10**13})})
    world.settle()
    jobs = {ref: each for ref, each in world.children.items() if ref.kind == "Job"}
    assert [config(each).model.source for ref, each in jobs.items() if ref not in first] == [MODEL]
    assert first <= jobs.keys()
    world.finish_inspections(FACTS)
    world.settle()
    assert world.status["placement"]["selected"] == "cpu"
    assert len(config(world.deployment).adapters or ()) == 2


@pytest.mark.parametrize("name", ["SmolLM2", "smollm2:latest"])
def test_a_name_that_is_the_model_s_to_clients_is_refused(name: str) -> None:
    world = World(spec(model={"source": MODEL, "adapters": [{"name": name, "source": SQL}]}))
    world.settle()
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["reason"] == "NamesAlike"


def test_a_source_that_the_site_doesn_t_allow_is_refused_of_an_adapter_too() -> None:
    world = World(spec(model={"source": MODEL, "adapters": ADAPTERS}))
    fetch = world.settings.fetch.model_copy(update={"allowed_sources": ("https://host/",)})
    world.settings = world.settings.model_copy(update={"fetch": fetch})
    world.settle()
    ready = world.condition("Ready")
    assert ready is not None
    assert SQL in ready["message"]


def test_an_adapter_that_comes_or_goes_is_a_change_like_any_other() -> None:
    world = deployed(adapters=[])
    world.run_pods(facts=FACTS[MODEL])
    world.settle()
    world.edit(model={"source": MODEL, "adapters": ADAPTERS})
    world.settle()
    assert config(world.deployment).adapters is None, "not before it is known what they are"
    world.finish_inspections(FACTS)
    world.settle()
    assert len(config(world.deployment).adapters or ()) == 2
