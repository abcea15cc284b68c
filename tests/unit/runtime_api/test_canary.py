"""Canaries: asked on a schedule, judged, and never in a client's way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from slm_contract import metrics as names
from slm_contract.config import CanaryConfig
from slm_runtime.canary import asking
from slm_runtime.canary.asking import Canaries
from slm_runtime.engine.client import EngineUnavailable
from tests.unit.runtime_api.scripted import Running, running, until

SCHEMA = '{"type": "object", "required": ["city"]}'


@asynccontextmanager
async def asked(*canaries: CanaryConfig, **changes: Any) -> AsyncIterator[Running]:
    async with running(canaries=canaries, **changes) as api:
        task = asyncio.create_task(Canaries(api.serving).run())
        try:
            yield api
        finally:
            task.cancel()


def canary(name: str = "capital", **fields: Any) -> CanaryConfig:
    return CanaryConfig.model_validate({"name": name, "prompt": "What is the capital of France?", **fields})


def once(api: Running, count: int = 1) -> Callable[[], bool]:
    return lambda: len(api.serving.canaries) == count


@pytest.mark.parametrize(
    ("expected", "answer", "passed"),
    [
        ({"contains": "Paris"}, "It is Paris.", True),
        ({"contains": "Paris"}, "It is London.", False),
        ({"regex": r"^It is \w+\.$"}, "It is Paris.", True),
        ({"regex": r"^It is \d+\.$"}, "It is Paris.", False),
        ({"json_schema": SCHEMA}, '{"city": "Paris"}', True),
        ({"json_schema": SCHEMA}, '{"town": "Paris"}', False),
        ({"json_schema": SCHEMA}, "Paris", False),
        ({"same_as_first": True}, "It is Paris.", True),
    ],
)
async def test_an_answer_is_held_against_what_is_expected(
    expected: dict[str, Any], answer: str, passed: bool
) -> None:
    wanted = canary(**expected)
    async with asked(wanted) as api:
        api.engine.script.pieces = [answer[:3], answer[3:]]
        await until(once(api))
        (report,) = api.serving.report().canaries or ()
        assert (report.passed, report.answer, report.key) == (passed, answer, wanted.key)
        told = api.serving.metrics.exposition().decode()
        assert f'{names.CANARY_PASSED}{{canary="capital"}} {float(passed)}' in told
        (request,) = api.engine.requests
        assert request.sampling.temperature == 0
        assert request.max_tokens == 64
        assert "What is the capital of France?" in str(request.prompt)
        assert api.serving.metrics.first_token._sum.get() == 0, "clients' latencies don't know of it"


async def test_another_answer_than_the_first_is_told() -> None:
    async with asked(canary(same_as_first=True, every_seconds=1)) as api:
        await until(once(api))
        assert api.serving.canaries["capital"].passed
        api.engine.script.pieces = ["London"]
        await until(lambda: not api.serving.canaries["capital"].passed)
        assert api.serving.canaries["capital"].answer == "London"


async def test_it_waits_for_a_place_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "QUIET_SECONDS", 0.01)
    async with running(canaries=(canary(contains="Hello"),), parallel=4) as api:
        api.engine.stats = replace(api.engine.stats, running=4)
        task = asyncio.create_task(Canaries(api.serving).run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert api.engine.requests == []
        api.engine.stats = replace(api.engine.stats, running=3)
        await until(once(api))
        task.cancel()


async def test_it_gives_its_place_to_a_client_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "AGAIN_SECONDS", 0.01)
    async with asked(canary(contains="Hello")) as api:
        api.engine.script.gate = asyncio.Event()
        await until(lambda: bool(api.engine.generations))
        api.engine.stats = replace(api.engine.stats, waiting=1)
        api.engine.script.gate.set()
        await until(lambda: api.engine.generations[0].cancelled)
        assert api.serving.canaries == {}
        api.engine.stats = replace(api.engine.stats, waiting=0)
        await until(once(api))


async def test_a_model_that_may_be_unloaded_is_asked_no_more_often_than_clients_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "QUIET_SECONDS", 0.01)
    one, two = canary("one", contains="Hello"), canary("two", contains="Hello")
    async with asked(one, two, keep_alive_seconds=60) as api:
        await until(once(api))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(api.engine.requests) == 1
        api.serving.asked = float("inf")
        await until(once(api, 2))


@pytest.mark.parametrize(
    "expected", [{"regex": "("}, {"json_schema": "{"}, {"json_schema": '{"type": 1}'}, {}]
)
async def test_an_expectation_that_says_nothing_is_no_drift(
    expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with asked(canary(**expected), canary("next", contains="Hello")) as api:
        await until(once(api))
        assert list(api.serving.canaries) == ["next"]
    assert any("can't be asked" in each.message for each in caplog.records)


async def test_a_pattern_that_comes_to_no_end_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "JUDGE_SECONDS", 0.3)
    async with asked(canary(regex="^(a+)+$"), canary("next", contains="a")) as api:
        api.engine.script.pieces = ["a" * 60 + "!"]
        await until(once(api))
        assert list(api.serving.canaries) == ["next"]


async def test_an_engine_that_is_away_is_asked_again() -> None:
    async with asked(canary(contains="Hello", every_seconds=1)) as api:
        api.engine.script.refuse = EngineUnavailable("it restarts")
        await until(lambda: api.engine.script.refuse is not None)
        api.engine.script.refuse = None
        await until(once(api))
