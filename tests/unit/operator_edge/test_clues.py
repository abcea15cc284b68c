"""Who is asked about, how often, and what becomes of the answer; the clock is the loop's."""

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from slm_operator import clues
from slm_operator.cluster import errors
from slm_operator.cluster.resources import JOB, POD, SLM_DEPLOYMENT
from slm_operator.queue import Lane, WorkQueue
from slm_operator.store import Store
from tests.sim.cluster import MemoryCluster
from tests.sim.loop import simulate
from tests.unit.operator_edge.objects import KEY, SETTINGS, child, slm

WORDS = "pods is forbidden: exceeded quota: small"
UID = "uid-Job"


class Api(MemoryCluster):
    """Counts the questions by the uid that they are about, and may refuse or swallow them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.error: errors.ClusterError | None = None
        self.silent = False

    async def list(self, resource, namespace, keep, *, field_selector="", cached=False):
        self.asked.append(field_selector.partition("=")[2])
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return await super().list(resource, namespace, keep, field_selector=field_selector)

    def warn(self, uid: str, message: str = WORDS, **more: Any) -> None:
        metadata = {"name": f"e{self.revision}", "namespace": "demo"}
        document = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "type": "Warning"}
        about = {"uid": uid}
        self.put({**document, "involvedObject": about, "reason": "FailedCreate", "message": message, **more})


def job(version: int = 1, *, uid: str = UID, name: str = "a-inspect-1", **status: Any) -> dict[str, Any]:
    document = child("Job", version, status=status)
    document["metadata"] |= {"uid": uid, "name": name}
    return document


def pod(version: int = 1, *, sandbox: bool = False) -> dict[str, Any]:
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "PodReadyToStartContainers", "status": str(sandbox)},
    ]
    return child("Pod", version, owner=None, status={"phase": "Pending", "conditions": conditions})


class Stage:
    def __init__(self) -> None:
        self.api, self.store, self.queue = Api(), Store(), WorkQueue()
        self.store.observe(SLM_DEPLOYMENT, slm(1))
        self.clues = clues.Clues(cluster=self.api, store=self.store, queue=self.queue)

    def known(self) -> dict[str, str]:
        snapshot = self.store.snapshot(KEY, SETTINGS, None)
        assert snapshot is not None
        return dict(snapshot.clues)

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.clues.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_job_without_pods_is_asked_about_and_its_deployment_is_woken_once():
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        stage.api.warn(UID)
        async with stage.running():
            assert await stage.queue.get() == (KEY, Lane.REPORT)
            stage.queue.done(KEY)
            assert stage.known() == {UID: WORDS}
            await asyncio.sleep(600)
            assert stage.queue.idle
        assert stage.api.asked == [UID] * len(stage.api.asked)
        assert 10 <= len(stage.api.asked) <= 15

    simulate(scenario())


def test_a_job_that_has_a_pod_at_once_is_not_asked_about():
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        async with stage.running():
            await asyncio.sleep(1)
            stage.store.observe(JOB, job(2, active=1))
            await asyncio.sleep(600)
        assert stage.api.asked == []

    simulate(scenario())


def test_a_clue_goes_when_a_pod_is_made():
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        stage.api.warn(UID)
        async with stage.running():
            await asyncio.sleep(10)
            assert stage.known() == {UID: WORDS}
            stage.store.observe(JOB, job(2, active=1))
            await asyncio.sleep(1)
            assert stage.known() == {}
            count = len(stage.api.asked)
            await asyncio.sleep(600)
            assert len(stage.api.asked) == count

    simulate(scenario())


def test_a_clue_goes_with_its_object():
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        stage.api.warn(UID)
        async with stage.running():
            await asyncio.sleep(10)
            stage.store.observe(JOB, job(2), deleted=True)
            assert stage.store.clue(UID) is None
            count = len(stage.api.asked)
            await asyncio.sleep(600)
            assert len(stage.api.asked) == count

    simulate(scenario())


def test_a_pod_is_given_longer_to_get_its_sandbox():
    async def scenario():
        stage = Stage()
        stage.store.observe(POD, pod())
        async with stage.running():
            await asyncio.sleep(19)
            assert stage.api.asked == []
            await asyncio.sleep(2)
            assert stage.api.asked == ["uid-Pod"]
            stage.store.observe(POD, pod(2, sandbox=True))
            await asyncio.sleep(600)
            assert stage.api.asked == ["uid-Pod"]

    simulate(scenario())


def test_an_operator_that_starts_knows_what_waits_before_it_decides():
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        stage.api.warn(UID)
        await stage.clues.begin()
        assert stage.known() == {UID: WORDS}

    simulate(scenario())


def test_an_api_server_that_does_not_answer_keeps_no_operator_from_starting():
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        stage.api.silent = True
        started = asyncio.get_running_loop().time()
        await stage.clues.begin()
        assert asyncio.get_running_loop().time() - started <= clues.BEFORE_ALL

    simulate(scenario())


def test_who_may_not_list_events_has_no_clues_and_says_so_once(caplog: pytest.LogCaptureFixture):
    async def scenario():
        stage = Stage()
        stage.store.observe(JOB, job())
        stage.api.error = errors.ForbiddenError("events is forbidden")
        async with stage.running():
            await asyncio.sleep(600)
        assert stage.known() == {}
        assert stage.queue.idle

    simulate(scenario())
    assert [record.getMessage() for record in caplog.records if "events" in record.getMessage()] == [
        "can't read events, so why pods aren't made stays unsaid"
    ]


def test_among_many_nobody_starves_and_the_api_server_is_asked_at_a_pace():
    async def scenario():
        stage = Stage()
        for number in range(300):
            stage.store.observe(JOB, job(uid=f"uid-{number}", name=f"a-inspect-{number}"))
        async with stage.running():
            await asyncio.sleep(60)
        assert len(set(stage.api.asked)) == 300
        assert len(stage.api.asked) <= 60 * clues.AT_ONCE / clues.PACE

    simulate(scenario())
