"""Resolve, then pin: what runs is what the source stood for when it was decided."""

import json
from typing import Any

import pytest

from slm_contract.report import FetchReport
from slm_contract.source import SourcePin
from tests.unit.operator_core.world import GIVEN, SMOLLM2, World, config_of, spec

ONE = SourcePin(revision="c0ffee", digest="1" * 64)
TWO = SourcePin(revision="decaf0", digest="2" * 64)
BRANCH = {"source": "https://host/main/model.gguf"}


def inspected(**changes: Any) -> World:
    """A world whose source was looked at."""
    world = World(spec(**{"model": BRANCH, **changes}))
    world.settle()
    world.finish_job("inspect", SMOLLM2.model_copy(update={"pin": ONE}))
    world.settle()
    return world


def served(**changes: Any) -> World:
    world = inspected(**changes)
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": ONE}))
    world.settle()
    return world


def pin_of(world: World) -> Any:
    return json.loads(config_of(world.deployment))["model"].get("pin")


def moves_on(world: World, latest: SourcePin) -> None:
    """Pods that were started since have seen that the source stands for something else."""
    for pod in world.pods:
        for status in pod["status"]["initContainerStatuses"]:
            ended = status["state"]["terminated"]
            report = FetchReport.model_validate_json(ended["message"])
            ended["message"] = report.model_copy(update={"latest": latest}).to_json()


def test_a_source_that_may_move_is_pinned_before_pods_are_made() -> None:
    world = World(spec(model=BRANCH, resources=GIVEN))
    world.settle()
    assert "Deployment" not in world.kinds(), "also where its memory is given"
    world.finish_job("inspect", SMOLLM2.model_copy(update={"pin": ONE}))
    world.settle()
    assert pin_of(world) == {"revision": "c0ffee", "digest": "1" * 64}
    assert world.status["model"]["revision"] == "c0ffee"
    assert world.status["model"]["digest"] == "1" * 64


@pytest.mark.parametrize(
    "model",
    [{"source": "pypi://p@1/m.gguf"}, {"source": "https://host/m.gguf", "sha256": "a" * 64}],
    ids=["an exact version", "a checksum"],
)
def test_a_source_that_says_it_all_is_not_asked_first(model: dict[str, Any]) -> None:
    world = World(spec(model=model, resources=GIVEN))
    world.settle()
    assert pin_of(world) is None


def test_a_claim_is_filled_with_what_was_pinned() -> None:
    world = inspected(cache={"mode": "PVC", "size": "2Gi"})
    assert json.loads(config_of(world.job("pull")))["model"]["pin"]["digest"] == "1" * 64
    world.finish_job("pull", SMOLLM2.model_copy(update={"pin": ONE}))
    world.settle()
    assert pin_of(world)["digest"] == "1" * 64
    assert "Job" not in world.kinds()


def test_another_context_is_no_reason_to_ask_again() -> None:
    world = served()
    world.edit(runtime={"contextLength": 1024})
    world.settle()
    assert "Job" not in world.kinds()
    assert pin_of(world)["digest"] == "1" * 64


def test_a_source_that_moved_is_told_and_what_was_pinned_runs_on() -> None:
    world = served()
    before = config_of(world.deployment)
    moves_on(world, TWO)
    world.settle()
    assert config_of(world.deployment) == before
    told = world.condition("SourceDrifted")
    assert told is not None
    assert (told["status"], told["reason"]) == ("True", "SourceMoved")
    assert "decaf0" in told["message"]
    assert "c0ffee" in told["message"]
    assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
    moves_on(world, ONE)
    world.settle()
    assert world.condition("SourceDrifted") is None


def test_a_source_that_moved_is_followed_where_the_spec_asks_for_it() -> None:
    world = served(model={**BRANCH, "refreshPolicy": "OnChange"})
    moves_on(world, TWO)
    world.settle()
    assert pin_of(world)["digest"] == "1" * 64, "not before it is known what is there"
    world.finish_job("inspect", SMOLLM2.model_copy(update={"pin": TWO}))
    world.settle()
    assert pin_of(world)["digest"] == "2" * 64
    assert "Job" not in world.kinds()
    old = list(world.pods)
    world.run_pods(facts=SMOLLM2.model_copy(update={"pin": TWO}))
    world.pods += [pod for pod in old if "terminated" in str(pod)]
    world.settle()
    assert "Job" not in world.kinds(), "the old pods' word is about the old pin"
    assert pin_of(world)["digest"] == "2" * 64


def test_asking_to_follow_rolls_nothing_by_itself() -> None:
    world = served()
    before = config_of(world.deployment)
    world.edit(model={**BRANCH, "refreshPolicy": "OnChange"})
    world.settle()
    assert config_of(world.deployment) == before
    assert "Job" not in world.kinds()
