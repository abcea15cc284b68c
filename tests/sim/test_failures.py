"""Whatever goes wrong on the way, the end is the same, nothing is deleted and made anew, and then there is rest."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from slm_operator.cluster import errors
from tests.sim.cases import DEPLOYMENT, SLM, node, slm, world
from tests.sim.cluster import Event, Ref
from tests.sim.ends import end_state, present
from tests.sim.loop import simulate
from tests.sim.stories import LONG, Story, a_cache, a_deletion_and_again, a_fallback, a_hurry, a_life, live
from tests.sim.world import World, counts

reference_of = cache(live)
"""The end of a story in which nothing goes wrong."""


@pytest.fixture(scope="module", params=[a_life, a_hurry, a_cache], ids=lambda story: story.__name__)
def story(request) -> Story:
    return request.param


@pytest.fixture(scope="module")
def reference(story) -> World:
    return reference_of(story)


def assert_same_end(each: World, reference: World) -> None:
    assert end_state(each.cluster) == end_state(reference.cluster)
    assert counts(each.cluster) == counts(reference.cluster)
    assert each.controllers.starts == reference.controllers.starts, "a pod was started needlessly"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_write(story, reference, moment):
    """Of the long story at every fourth, of the others at all; several in one life are below."""
    first, step = (("before", "after").index(moment), 4) if story is a_life else (0, 1)
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
    if behind < 10:
        # Further back a Job that has done its work isn't known, nor what it was for.
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
    each = live(story, refuse=EveryThird())
    assert_same_end(each, reference)


class EveryThird:
    """An API server that refuses every third write."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _verb: str, _ref: Ref) -> errors.ClusterError | None:
        self.asked += 1
        return errors.UnavailableError("etcdserver: request timed out") if self.asked % 3 == 0 else None


def every_fourth(first: int) -> frozenset[int]:
    return frozenset(range(first, 400, 4))


ACCIDENTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        f"crashes after {first} of 4": lambda first=first: {"after": every_fourth(first)}
        for first in range(4)
    },
    **{f"crashes before {first} of 4": lambda first=first: {"before": every_fourth(first)} for first in (0,)},
    "lists from the past": lambda: {"after": every_fourth(1), "stale_by": 10},
    "lost events of Deployments": lambda: {"lose": lambda event: event.ref.kind == "Deployment"},
    "lost events of pods": lambda: {"lose": lambda event: event.ref.kind == "Pod"},
    "late events of pods": lambda: {"delay": lambda event: 7.0 if event.ref.kind == "Pod" else 0.01},
    "refusals": lambda: {"refuse": EveryThird()},
    "two operators that crash": lambda: {"operators": 2, "after": every_fourth(1)},
}
"""What may go wrong in a long story; crashes come at every fourth write, from each of the first four on."""
LOOSE = ("lists from the past", "lost events of pods")
"""Where something may be made a second time: a Job whose answer is known already, a revision that knows less."""


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("long", LONG, ids=lambda story: story.__name__)
def test_a_long_story_comes_to_the_same_end(long, accident):
    if long is a_fallback and accident.startswith("lost"):
        pytest.skip("people would wait longer for a resync than the class's patience and cool-down last")
    reference, each = reference_of(long), live(long, **ACCIDENTS[accident]())
    assert present(end_state(each.cluster)) == present(end_state(reference.cluster))
    if long is not a_deletion_and_again and accident not in LOOSE:
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
