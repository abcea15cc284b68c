import asyncio

import pytest

from slm_operator.cluster import errors
from slm_operator.cluster.resources import LEASE
from slm_operator.lease import DEADLINE, DURATION, RENEW, RETRY, Lease, LeaseLostError
from tests.sim.cluster import MemoryCluster
from tests.sim.loop import simulate, wall_clock


class Flaky:
    """The cluster, or nothing of it."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster
        self.down = False

    def __getattr__(self, name: str):
        if self.down:

            async def unavailable(*_args, **_kwargs):
                raise errors.UnavailableError("no answer")

            return unavailable
        return getattr(self.cluster, name)


def lease(cluster, identity: str) -> Lease:
    return Lease(cluster=cluster, namespace="system", name="slm", identity=identity, clock=wall_clock)


async def spec(cluster: MemoryCluster) -> dict:
    return (await cluster.get(LEASE, "system", "slm"))["spec"]


def test_a_lease_that_is_not_there_is_made_and_kept():
    async def scenario():
        cluster = MemoryCluster()
        first = lease(cluster, "one")
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        before = await spec(cluster)
        await asyncio.sleep(60)
        after = await spec(cluster)
        holding.cancel()
        assert before["holderIdentity"] == after["holderIdentity"] == "one"
        assert after["renewTime"] > before["renewTime"]
        assert after["acquireTime"] == before["acquireTime"]
        assert after["leaseTransitions"] == 0
        assert len(cluster.writes) == 1 + 60 / RENEW - 1

    simulate(scenario())


def test_a_second_one_waits_while_the_first_renews():
    async def scenario():
        cluster = MemoryCluster()
        first, second = lease(cluster, "one"), lease(cluster, "two")
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(300)
        assert not waiting.done()
        holding.cancel()
        waiting.cancel()

    simulate(scenario())


def test_a_silent_holder_is_replaced_and_never_before_its_time():
    async def scenario():
        cluster = MemoryCluster()
        await lease(cluster, "one").acquire()
        second = lease(cluster, "two")
        await second.acquire()
        took = asyncio.get_running_loop().time()
        assert DURATION <= took <= DURATION + 2 * RETRY
        assert (await spec(cluster))["holderIdentity"] == "two"
        assert (await spec(cluster))["leaseTransitions"] == 1

    simulate(scenario())


def test_a_released_lease_is_taken_at_once():
    async def scenario():
        cluster = MemoryCluster()
        first = lease(cluster, "one")
        await first.acquire()
        await first.release()
        await lease(cluster, "two").acquire()
        assert asyncio.get_running_loop().time() == 0

    simulate(scenario())


def test_a_restarted_container_of_the_same_pod_goes_on_at_once():
    async def scenario():
        cluster = MemoryCluster()
        await lease(cluster, "one").acquire()
        await lease(cluster, "one").acquire()
        assert asyncio.get_running_loop().time() == 0

    simulate(scenario())


def test_a_holder_that_cannot_renew_ends_before_anybody_may_take_over():
    async def scenario():
        cluster = Flaky(MemoryCluster())
        first = lease(cluster, "one")
        await first.acquire()
        cluster.down = True
        with pytest.raises(LeaseLostError, match="couldn't be renewed for 10 s"):
            await first.hold()
        assert not first.held
        assert asyncio.get_running_loop().time() <= DEADLINE + RETRY < DURATION

    simulate(scenario())


def test_a_short_outage_loses_nothing():
    async def scenario():
        cluster = Flaky(MemoryCluster())
        first = lease(cluster, "one")
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        await asyncio.sleep(RENEW + 1)
        cluster.down = True
        await asyncio.sleep(DEADLINE - 2 * RETRY)
        cluster.down = False
        await asyncio.sleep(60)
        assert not holding.done()
        holding.cancel()

    simulate(scenario())


def test_a_stolen_lease_ends_the_holder():
    async def scenario():
        cluster = MemoryCluster()
        first = lease(cluster, "one")
        await first.acquire()
        live = await cluster.get(LEASE, "system", "slm")
        live["spec"]["holderIdentity"] = "thief"
        cluster.put(live)
        with pytest.raises(LeaseLostError, match="held by thief"):
            await first.hold()

    simulate(scenario())


def test_two_that_start_together_do_not_both_get_it():
    async def scenario():
        cluster = MemoryCluster()
        leases = [lease(cluster, name) for name in ("one", "two", "three")]
        waiting = [asyncio.create_task(each.acquire()) for each in leases]
        await asyncio.sleep(RETRY * 3)
        assert sum(each.held for each in leases) == 1
        for each in waiting:
            each.cancel()

    simulate(scenario())


def test_who_may_not_ask_for_the_lease_says_so_until_it_may():
    class Forbidding(MemoryCluster):
        refused = True

        async def get(self, resource, namespace, name):  # type: ignore[override]
            if self.refused:
                raise errors.ForbiddenError("leases is forbidden")
            return await super().get(resource, namespace, name)

    async def scenario():
        cluster = Forbidding()
        each = lease(cluster, "one")
        assert not each.waits
        acquiring = asyncio.create_task(each.acquire())
        await asyncio.sleep(60)
        assert not each.waits
        assert "system/slm: leases is forbidden" in (each.hindrance or "")
        cluster.refused = False
        await acquiring
        assert each.hindrance is None
        behind = lease(cluster, "two")
        waiting = asyncio.create_task(behind.acquire())
        await asyncio.sleep(RETRY)
        assert behind.waits
        waiting.cancel()

    simulate(scenario())
