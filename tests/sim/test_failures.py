"""Whatever goes wrong on the way, the end is the same, nothing is deleted and made anew, and then there is rest."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from slm_operator.cluster import errors
from tests.sim.cases import DEPLOYMENT, SLM, node, slm, world
from tests.sim.cluster import Event
from tests.sim.ends import end_state, present
from tests.sim.loop import simulate
from tests.sim.safety import Safety
from tests.sim.world import Faults, World, counts

Story = Callable[[World], Awaitable[None]]


async def a_life(each: World) -> None:
    """Made, edited, scaled, suspended and resumed, with its memory fitted; another one made and deleted."""
    each.cluster.put(slm(resources=None))
    await each.pause()
    each.cluster.change(SLM, lambda document: document["spec"]["runtime"].update(contextLength=1024))
    await each.pause()
    each.cluster.put(slm("b"))
    each.cluster.change(SLM, lambda document: document["spec"].update(replicas=2))
    await each.pause()
    each.cluster.remove(SLM._replace(name="b"))
    each.cluster.change(SLM, lambda document: document["spec"].update(suspend=True))
    await each.pause()
    each.cluster.change(SLM, lambda document: document["spec"].update(suspend=False))
    await each.pause()


async def a_hurry(each: World) -> None:
    """The same spec in the end, by edits that come before anything has settled."""
    each.cluster.put(slm(resources=None))
    for context in (512, 1024, 2048, 1024):
        await asyncio.sleep(0.05)
        each.cluster.change(
            SLM, lambda document, context=context: document["spec"]["runtime"].update(contextLength=context)
        )
    await each.pause()


async def a_cache(each: World) -> None:
    """A volume that a Job fills before the pods start."""
    each.cluster.put(slm(cache={"mode": "PVC", "size": "1Gi"}, resources=None))
    await each.pause()


def live(story: Story, operators: int = 1, **faults) -> World:
    """Run a story to its end and check what always has to hold."""

    async def scenario() -> World:
        each = world(**faults)
        each.watch = Safety()
        await each.start(operators)
        await story(each)
        await each.settle()
        since = len(each.cluster.requests)
        await each.stop()
        each.faults = Faults()
        await each.start()
        await each.settle()
        assert each.cluster.requests[since:] == [], "a restart at rest writes"
        await each.stop()
        return each

    return simulate(scenario())


STORIES = [a_life, a_hurry, a_cache]


@pytest.fixture(scope="module", params=STORIES, ids=lambda story: story.__name__)
def story(request) -> Story:
    return request.param


@pytest.fixture(scope="module")
def reference(story) -> World:
    return live(story)


def assert_same_end(each: World, reference: World) -> None:
    assert end_state(each.cluster) == end_state(reference.cluster)
    assert counts(each.cluster) == counts(reference.cluster)
    assert each.controllers.starts == reference.controllers.starts, "a pod was started needlessly"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_write(story, reference, moment):
    """Of the long story before the even writes and after the odd ones, of the others at all."""
    first, step = (("before", "after").index(moment), 2) if story is a_life else (0, 1)
    for number in range(first, reference.asked, step):
        each = live(story, **{moment: frozenset({number})})
        assert each.crashes == 1, number
        assert_same_end(each, reference)


def test_a_crash_at_every_second_write(story, reference):
    each = live(story, after=frozenset(range(0, 2 * reference.asked, 2)))
    assert each.crashes >= reference.asked // 4
    assert_same_end(each, reference)


@pytest.mark.parametrize("behind", [1, 3, 10, 100])
def test_crashes_and_lists_from_the_past(story, reference, behind):
    """A list is consistent in fact; this is the worst that a lagging cache before the API server could do."""
    each = live(story, after=frozenset(range(1, 40, 4)), stale_by=behind)
    assert present(end_state(each.cluster)) == present(end_state(reference.cluster))
    if behind < 100:
        assert_same_end(each, reference)


@pytest.mark.parametrize(
    "kind", ["SLMDeployment", "Deployment", "Service", "Pod", "Job", "PersistentVolumeClaim"]
)
def test_lost_events_are_found_by_the_next_list(story, reference, kind):
    """Also deletions, which a watch that lists anew never tells."""
    each = live(story, lose=lambda event: event.ref.kind == kind)
    assert present(end_state(each.cluster)) == present(end_state(reference.cluster))


@pytest.mark.parametrize("kind", ["SLMDeployment", "Deployment", "Pod"])
def test_late_events(story, reference, kind):
    """The watches deliver in order, and stall for seconds at one kind."""

    def delay(event: Event) -> float:
        return 7.0 if event.ref.kind == kind else 0.01

    each = live(story, delay=delay)
    assert present(end_state(each.cluster)) == present(end_state(reference.cluster))
    assert counts(each.cluster) == counts(reference.cluster)


def test_two_operators_at_once(story, reference):
    each = live(story, operators=2)
    assert_same_end(each, reference)


def test_two_operators_that_crash(story, reference):
    each = live(story, operators=2, after=frozenset(range(1, 60, 5)))
    assert_same_end(each, reference)


def test_an_api_server_that_refuses_every_third_write(story, reference):
    asked = 0

    def refuse(_verb, _ref):
        nonlocal asked
        asked += 1
        return errors.UnavailableError("etcdserver: request timed out") if asked % 3 == 0 else None

    each = live(story, refuse=refuse)
    assert_same_end(each, reference)


@pytest.mark.parametrize("changed", ["replicas", "label", "deleted"])
def test_what_is_done_to_children_is_undone(changed):
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(resources=None))
        await each.settle()
        before = end_state(each.cluster)
        if changed == "deleted":
            each.cluster.remove(DEPLOYMENT)
        elif changed == "replicas":
            each.cluster.change(DEPLOYMENT, lambda document: document["spec"].update(replicas=5))
        else:
            each.cluster.change(
                DEPLOYMENT,
                lambda document: document["metadata"]["labels"].update(
                    {"app.kubernetes.io/part-of": "mine", "team": "a"}
                ),
            )
        await each.settle()
        after = end_state(each.cluster)
        if changed == "label":
            assert after[DEPLOYMENT]["metadata"]["labels"].pop("team") == "a", "others' labels are left alone"
        if changed != "deleted":
            assert after == before
        else:
            assert after.keys() == before.keys()
        await each.stop()

    simulate(scenario())


def test_a_deletion_takes_everything_while_the_operator_is_away():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(cache={"mode": "PVC", "size": "1Gi"}))
        await each.settle()
        await each.stop()
        each.cluster.remove(SLM)
        for _ in range(3):
            each.controllers.step()
        assert {ref.kind for ref in each.cluster.objects} == {"Node"}
        since = len(each.cluster.requests)
        await each.start()
        await each.settle()
        assert each.cluster.requests[since:] == []
        await each.stop()

    simulate(scenario())


def test_a_deletion_and_a_new_one_of_the_name_in_one_breath():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm())
        await each.settle()
        each.cluster.remove(SLM)
        each.cluster.put(slm(replicas=2))
        await each.settle()
        uid = each.cluster.objects[SLM]["metadata"]["uid"]
        assert each.cluster.objects[DEPLOYMENT]["metadata"]["ownerReferences"][0]["uid"] == uid
        assert each.cluster.objects[SLM]["status"]["readyReplicas"] == 2
        await each.stop()

    simulate(scenario())


def test_hardware_that_appears_and_is_preferred_is_taken_by_the_next_one():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(hardware={"preference": ["npu", "cpu"]}))
        await each.settle()
        status = each.cluster.objects[SLM]["status"]
        assert status["placement"]["selected"] == "cpu"
        assert [rejected["hardware"] for rejected in status["placement"]["rejected"]] == ["npu-test"]
        fast = node("fast", **{"example.com/npu": "1"})
        fast["metadata"]["labels"]["npu"] = "yes"
        each.cluster.put(fast)
        each.cluster.put(slm("b", hardware={"preference": ["npu", "cpu"]}))
        await each.settle()
        assert each.cluster.objects[SLM._replace(name="b")]["status"]["placement"]["selected"] == "npu-test"
        await each.stop()

    simulate(scenario())
