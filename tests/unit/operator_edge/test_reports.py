import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from typing_extensions import override

from slm_contract.places import OPS_PORT
from slm_contract.report import RuntimeReport
from slm_operator import reports
from slm_operator.cluster.resources import POD, SLM_DEPLOYMENT
from slm_operator.queue import Lane, WorkQueue
from slm_operator.store import Store
from tests.sim.loop import simulate
from tests.support.ports import free_port
from tests.unit.operator_edge.objects import KEY, child, slm

LOADING = RuntimeReport(command="serve", phase="Loading")
READY = RuntimeReport(command="serve", phase="Ready")


class Pods:
    """Answers with one report, and counts."""

    def __init__(self, report: RuntimeReport | None) -> None:
        self.body = report and report.to_json().encode()
        self.asked = 0

    async def __call__(self, _address: str) -> bytes | None:
        self.asked += 1
        return self.body


def pod(version: int, *, ready: bool, address: str | None = "10.0.0.1", **metadata):
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"phase": "Running", "conditions": conditions, **({"podIP": address} if address else {})}
    document = child("Pod", version, owner=None, status=status)
    document["metadata"] |= metadata
    return document


def stage(pods, document, *, resting: bool = False, measured: bool = True):
    store, queue = Store(), WorkQueue()
    ready = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    ready |= {"performance": {"tokensPerSecond": 58}} if measured else {}
    store.observe(SLM_DEPLOYMENT, slm(1, status=ready if resting else {}))
    store.observe(POD, document)
    return store, queue, reports.Reports(store=store, queue=queue, fetch=pods, interval=2)


@asynccontextmanager
async def running(each: reports.Reports):
    task = asyncio.create_task(each.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_changed_report_wakes_its_deployment_and_an_equal_one_does_not():
    async def scenario():
        pods = Pods(LOADING)
        store, queue, each = stage(pods, pod(1, ready=False))
        async with running(each):
            assert await queue.get() == (KEY, Lane.REPORT)
            assert store.report("uid-Pod") == LOADING
            queue.done(KEY)
            await asyncio.sleep(5)
            assert pods.asked == 3
            assert queue.idle

    simulate(scenario())


def test_a_pod_that_became_ready_is_asked_until_it_has_told_what_it_measured():
    async def scenario():
        pods = Pods(LOADING)
        store, _, each = stage(pods, pod(1, ready=False))
        async with running(each):
            await asyncio.sleep(0.1)
            store.observe(POD, pod(2, ready=True))
            await asyncio.sleep(0.1)
            assert pods.asked == 2
            pods.body = READY.to_json().encode()
            await asyncio.sleep(60)
            assert pods.asked == 3
            assert store.report("uid-Pod") == READY

    simulate(scenario())


@pytest.mark.parametrize(
    "document",
    [
        pod(1, ready=False, address=None),
        pod(1, ready=False, deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
)
def test_pods_without_address_or_on_their_way_out_are_left_alone(document):
    async def scenario():
        pods = Pods(LOADING)
        _, _, each = stage(pods, document)
        async with running(each):
            await asyncio.sleep(60)
        assert pods.asked == 0

    simulate(scenario())


def test_a_pod_that_is_gone_is_left_alone():
    async def scenario():
        pods = Pods(LOADING)
        store, _, each = stage(pods, pod(1, ready=False))
        async with running(each):
            await asyncio.sleep(1)
            store.observe(POD, pod(2, ready=False), deleted=True)
            await asyncio.sleep(60)
        assert pods.asked == 1

    simulate(scenario())


def test_deployments_at_rest_are_left_alone_after_a_restart():
    async def scenario():
        pods = Pods(READY)
        _, _, each = stage(pods, pod(1, ready=True), resting=True)
        async with running(each):
            await asyncio.sleep(60)
        assert pods.asked == 0

    simulate(scenario())


def test_pods_whose_model_is_asked_now_and_then_go_on_telling_what_it_answered():
    async def scenario():
        pods = Pods(READY)
        store, _, each = stage(pods, pod(1, ready=True), resting=True)
        document = store.get(SLM_DEPLOYMENT, *KEY)
        watched = {**document["spec"], "observability": {"canary": [{"name": "capital"}]}}
        metadata = {**document["metadata"], "resourceVersion": "2"}
        store.observe(SLM_DEPLOYMENT, {**document, "metadata": metadata, "spec": watched})
        async with running(each):
            await asyncio.sleep(4 * reports.LONGEST_PAUSE)
        assert 3 <= pods.asked <= 5, "rarely, and for ever"

    simulate(scenario())


def test_what_a_crash_kept_from_the_status_is_asked_for_after_the_restart():
    """Ready was written, and the operator was gone before it had read what the pod measured."""

    async def scenario():
        pods = Pods(READY)
        store, _, each = stage(pods, pod(1, ready=True), resting=True, measured=False)
        async with running(each):
            await asyncio.sleep(1)
        assert store.report("uid-Pod") == READY

    simulate(scenario())


def test_a_silent_pod_is_asked_ever_more_rarely():
    async def scenario():
        pods = Pods(None)
        _, queue, each = stage(pods, pod(1, ready=False))
        async with running(each):
            await asyncio.sleep(600)
        assert 10 <= pods.asked <= 20
        assert queue.idle

    simulate(scenario())


def test_a_pod_that_was_silent_is_asked_as_soon_as_it_is_ready():
    async def scenario():
        pods = Pods(None)
        store, _, each = stage(pods, pod(1, ready=False))
        async with running(each):
            await asyncio.sleep(310)
            store.observe(POD, pod(2, ready=True))
            pods.body = READY.to_json().encode()
            await asyncio.sleep(0.1)
            assert store.report("uid-Pod") == READY

    simulate(scenario())


class Unreachable(Pods):
    """But for one, all swallow the question until its time is up."""

    def __init__(self, report: RuntimeReport, reachable: str) -> None:
        super().__init__(report)
        self._reachable = reachable
        self.in_flight = 0
        self.most = 0

    @override
    async def __call__(self, address: str) -> bytes | None:
        if address == self._reachable:
            return await super().__call__(address)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(reports.TIMEOUT)
        self.in_flight -= 1
        return None


@pytest.mark.parametrize("others", [200, 2000])
def test_pods_that_nobody_can_reach_delay_no_other(others):
    async def scenario():
        pods = Unreachable(LOADING, "10.0.0.1")
        store, _, each = stage(pods, pod(1, ready=False, address="10.9.9.9"))
        for number in range(others):
            silent = pod(1, ready=False, address="10.9.9.9", name=f"p{number}", uid=f"uid-{number}")
            store.observe(POD, silent)
        async with running(each):
            await asyncio.sleep(300)
            store.observe(POD, pod(2, ready=False, name="fetching", uid="uid-fetching"))
            await asyncio.sleep(2)
            assert pods.asked >= 1
            await asyncio.sleep(58)
            assert pods.asked >= 20
        assert pods.most <= reports.AT_ONCE + 1

    simulate(scenario())


def test_one_pod_among_many_that_start_with_it_is_asked_within_the_interval():
    async def scenario():
        pods = Unreachable(LOADING, "10.0.0.1")
        store, _, each = stage(pods, pod(1, ready=False, address="10.9.9.9"))
        for number in range(200):
            silent = pod(1, ready=False, address="10.9.9.9", name=f"p{number}", uid=f"uid-{number}")
            store.observe(POD, silent)
        store.observe(POD, pod(1, ready=False, name="fetching", uid="uid-fetching"))
        async with running(each):
            await asyncio.sleep(2)
        assert store.report("uid-fetching") == LOADING

    simulate(scenario())


NAN = (
    b'{"command": "serve", "phase": "Ready", "performance": {"loadSeconds": NaN, "firstTokenMs": 1, '
    b'"tokensPerSecond": 1, "measuredAt": "2026-01-01T00:00:00Z"}}'
)


@pytest.mark.parametrize(
    "body", [None, b"", b"<html>", b'{"version": 7}', b"[]", b'{"command": "serve", "phase": 1}', NAN]
)
def test_what_is_no_report_counts_as_nothing(body):
    assert reports.parse(body) is None


def test_but_for_the_number_it_would_be_one():
    assert reports.parse(NAN.replace(b"NaN", b"1")) is not None


@pytest.fixture
async def hostile(monkeypatch):
    """A pod's operations port on this machine that answers as it is told."""
    answer = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        return await answer["with"](request)

    app = web.Application()
    app.router.add_get("/report", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    monkeypatch.setattr(reports, "OPS_PORT", port)
    yield answer
    await runner.cleanup()


async def ask() -> bytes | None:
    async with reports.session() as session:
        return await reports.HttpFetch(session)("127.0.0.1")


async def test_a_report_is_read(hostile):
    async def fine(_):
        return web.Response(body=READY.to_json().encode())

    hostile["with"] = fine
    assert reports.parse(await ask()) == READY


async def test_a_flood_is_cut_off(hostile):
    async def flood(_):
        return web.Response(body=b"x" * (reports.LIMIT + 1))

    hostile["with"] = flood
    assert await ask() is None


async def test_a_pod_cannot_send_the_operator_elsewhere(hostile):
    async def redirect(_):
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data")

    hostile["with"] = redirect
    assert await ask() is None


async def test_a_pod_that_never_answers_costs_its_timeout_only(hostile, monkeypatch):
    async def silence(_):
        await asyncio.Event().wait()

    hostile["with"] = silence
    monkeypatch.setattr(reports, "TIMEOUT", 0.05)
    assert await ask() is None


async def test_nobody_there(monkeypatch):
    assert OPS_PORT == 8081
    # On which somebody may well be: whoever tries `make run` next to the tests.
    monkeypatch.setattr(reports, "OPS_PORT", free_port())
    async with reports.session() as session:
        assert await reports.HttpFetch(session)("127.0.0.1") is None
