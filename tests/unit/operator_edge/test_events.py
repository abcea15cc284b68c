"""Events are posted when there is time, few of them, and what goes wrong with one is nobody's trouble."""

import asyncio
import copy
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from slm_operator import events
from slm_operator.cluster import errors
from slm_operator.status.events import LIMIT, Event
from tests.sim.cluster import MemoryCluster
from tests.sim.loop import simulate, wall_clock
from tests.unit.operator_edge.objects import slm

HOUR = 3600.0


class Api(MemoryCluster):
    """May refuse."""

    error: errors.ClusterError | None = None

    async def create(self, document: dict[str, Any]) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return await super().create(document)

    def posted(self) -> list[dict[str, Any]]:
        return [document for _, document in self.of("Event")]


def status(reason: str, message: str = "its words", ready: str = "False") -> dict[str, Any]:
    time = "2026-01-01T00:00:00Z"
    told = {"type": "Ready", "status": ready, "reason": reason, "message": message}
    return slm(7, status={"conditions": [{**told, "lastTransitionTime": time}]})


@asynccontextmanager
async def running(api: Api):
    each = events.Events(cluster=api, clock=wall_clock, instance="slm-operator-0")
    task = asyncio.create_task(each.run())
    yield each
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_an_event_says_about_whom_and_by_whom():
    async def scenario():
        api = Api()
        async with running(api) as each:
            each.tell(slm(6), status("SourceNotFound"))
            await asyncio.sleep(1)
        (posted,) = api.posted()
        assert posted["firstTimestamp"] == posted["lastTimestamp"]
        assert datetime.fromisoformat(posted["firstTimestamp"]).tzinfo == UTC
        assert posted["metadata"]["name"].startswith("a.")
        assert posted["involvedObject"] == {
            "apiVersion": "slm-operator.io/v1alpha1",
            "kind": "SLMDeployment",
            "name": "a",
            "namespace": "demo",
            "uid": "uid-a",
            "resourceVersion": "7",
        }
        assert (posted["type"], posted["reason"], posted["message"]) == (
            "Warning",
            "SourceNotFound",
            "its words",
        )
        assert (posted["source"], posted["reportingComponent"], posted["reportingInstance"]) == (
            {"component": "slm-operator"},
            "slm-operator",
            "slm-operator-0",
        )

    simulate(scenario())


def test_a_status_that_tells_nothing_new_posts_nothing():
    async def scenario():
        api = Api()
        async with running(api) as each:
            each.tell(status("SourceNotFound"), status("SourceNotFound", "in other words"))
            await asyncio.sleep(1)
        assert api.posted() == []

    simulate(scenario())


def test_what_goes_to_and_fro_is_told_once_an_hour():
    async def scenario():
        api = Api()
        fault, fine = status("ContainerFailed"), status("Starting", ready="Unknown")
        async with running(api) as each:
            for _ in range(60):
                each.tell(fine, fault)
                await asyncio.sleep(50)
            assert len(api.posted()) == 1
            await asyncio.sleep(HOUR)
            each.tell(fine, fault)
            await asyncio.sleep(1)
        assert len(api.posted()) == 2

    simulate(scenario())


def test_few_an_hour_of_one_and_others_are_not_kept_from_theirs():
    async def scenario():
        api = Api()
        other = status("Reason")
        other["metadata"] |= {"name": "b", "uid": "uid-b"}
        async with running(api) as each:
            for number in range(100):
                each.tell(slm(1), status(f"Reason{number}"))
            each.tell(slm(1), other)
            await asyncio.sleep(100)
            about = [posted["involvedObject"]["name"] for posted in api.posted()]
            assert sorted(about) == ["a"] * events.IN_AN_HOUR + ["b"]
            await asyncio.sleep(HOUR)
            each.tell(slm(1), status("Reason7"))
            await asyncio.sleep(1)
        assert len(api.posted()) == events.IN_AN_HOUR + 2

    simulate(scenario())


def test_a_refused_event_is_dropped_and_the_next_is_posted():
    async def scenario():
        api = Api()
        async with running(api) as each:
            api.error = errors.ForbiddenError("events is forbidden")
            each.tell(slm(1), status("First"))
            await asyncio.sleep(1)
            api.error = None
            each.tell(slm(1), status("Second"))
            await asyncio.sleep(1)
        assert [posted["reason"] for posted in api.posted()] == ["Second"]

    simulate(scenario())


def test_what_overflows_is_dropped_and_may_be_told_later():
    async def scenario():
        api = Api()
        each = events.Events(cluster=api, clock=wall_clock, instance="slm-operator-0")
        for number in range(events.WAITING + 100):
            document = copy.deepcopy(status("Reason"))
            document["metadata"] |= {"name": f"a{number}", "uid": f"uid-{number}"}
            each.tell(slm(1), document)
        task = asyncio.create_task(each.run())
        await asyncio.sleep(events.WAITING * events.PACE + 10)
        assert len(api.posted()) == events.WAITING
        each.tell(slm(1), document)
        await asyncio.sleep(1)
        assert len(api.posted()) == events.WAITING + 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    simulate(scenario())


def test_who_told_nothing_for_an_hour_is_forgotten():
    budget = events.Budget()
    event = Event("Normal", "Placed", "x" * LIMIT)
    for number in range(1000):
        assert budget.admits(f"uid-{number}", event, float(number))
    assert not budget.admits("uid-999", event, 1000.0)
    assert budget.admits("uid-1000", event, 1000.0 + 2 * HOUR)
    assert len(budget) == 1
