"""Replicas under an autoscaler, in the whole simulated cluster: its word stands, through changes and restarts."""

import pytest

from slm_operator.settings import AutoscalingSettings
from tests.sim.cases import DEPLOYMENT, slm
from tests.sim.cluster import Ref
from tests.sim.stories import conditions, edit, play, pods
from tests.sim.world import World

SITE = AutoscalingSettings(prometheus="http://prometheus:9090")
SCALER = {
    "ScaledObject": Ref("ScaledObject", "demo", "a"),
    "MetricValueList": Ref("HorizontalPodAutoscaler", "demo", "a"),
}


def scale(world: World, replicas: int) -> None:
    world.cluster.patch(DEPLOYMENT, {"spec": {"replicas": replicas}}, by="autoscaler", subresource="scale")


@pytest.mark.parametrize("served", SCALER)
def test_what_an_autoscaler_says_stands_through_a_change_of_the_pods(served: str) -> None:
    async def scenario(each: World) -> None:
        each.cluster.served.add(served)
        each.cluster.put(slm(autoscaling={"min": 1, "max": 4}))
        await each.pause()
        assert conditions(each)["Autoscaled"][0] == "True"
        scale(each, 3)
        await each.pause()
        assert len(pods(each)) == 3
        edit(each, runtime={"contextLength": 1024})
        await each.pause()
        assert len(pods(each)) == 3
        assert conditions(each)["Ready"] == ("True", "Serving")
        edit(each, suspend=True)
        await each.pause()
        assert not pods(each)
        assert SCALER[served] not in each.cluster.objects
        edit(each, suspend=False)
        await each.pause()
        assert len(pods(each)) == 1
        assert SCALER[served] in each.cluster.objects

    play(scenario, autoscaling=SITE, resync_seconds=30)


def test_an_api_that_comes_later_is_found_and_one_that_goes_is_told() -> None:
    async def scenario(each: World) -> None:
        each.cluster.put(slm(autoscaling={"max": 2}))
        await each.pause()
        assert conditions(each)["Autoscaled"] == ("False", "MetricsAPIMissing")
        each.cluster.served.add("ScaledObject")
        await each.pause()
        assert SCALER["ScaledObject"] in each.cluster.objects

    play(scenario, autoscaling=SITE, resync_seconds=30)
