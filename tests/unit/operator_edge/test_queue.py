import asyncio

import pytest

from slm_operator.queue import LAST_DELAY, PATIENCE, Lane, WorkQueue
from tests.sim.loop import simulate


async def drain(queue: WorkQueue[str]) -> list[tuple[str, Lane]]:
    taken = []
    while not queue.idle:
        key, lane = await queue.get()
        queue.done(key)
        taken.append((key, lane))
    return taken


def test_a_key_added_twice_is_processed_once():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("a")
        assert await drain(queue) == [("a", Lane.ACT)]

    simulate(scenario())


def test_a_key_added_while_it_runs_runs_once_more_and_never_twice_at_once():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key, _ = await queue.get()
        queue.add("a", Lane.REPORT)
        queue.add("a", Lane.ACT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await queue.get()
        queue.done(key)
        assert await drain(queue) == [("a", Lane.ACT)]

    simulate(scenario())


def test_those_that_act_go_before_those_that_report():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        for key in ("r1", "r2"):
            queue.add(key, Lane.REPORT)
        for key in ("a1", "a2"):
            queue.add(key)
        assert [key for key, _ in await drain(queue)] == ["a1", "a2", "r1", "r2"]

    simulate(scenario())


def test_a_waiting_reporter_becomes_urgent_by_an_urgent_event():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a", Lane.REPORT)
        queue.add("b")
        queue.add("a")
        queue.add("a", Lane.REPORT)
        assert await drain(queue) == [("b", Lane.ACT), ("a", Lane.ACT)]

    simulate(scenario())


def test_a_reporter_that_has_waited_long_gets_every_other_turn():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        for key in ("r1", "r2"):
            queue.add(key, Lane.REPORT)
        await asyncio.sleep(PATIENCE + 1)
        for key in ("a1", "a2", "a3"):
            queue.add(key)
        assert [key for key, _ in await drain(queue)] == ["r1", "a1", "r2", "a2", "a3"]

    simulate(scenario())


def test_of_several_delays_the_earliest_counts():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        loop = asyncio.get_running_loop()
        queue.add_after("a", 60)
        queue.add_after("a", 5)
        queue.add_after("a", 30)
        await queue.get()
        assert loop.time() == 5

    simulate(scenario())


def test_retries_back_off_with_jitter_to_an_end_and_begin_anew_after_a_success():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        delays = [queue.retry("a") for _ in range(20)]
        for number, delay in enumerate(delays):
            full = min(LAST_DELAY, 0.2 * 2**number)
            assert full / 2 <= delay <= full
        queue.forget("a")
        assert queue.retry("a") <= 0.2

    simulate(scenario())


def test_a_retry_waits_at_least_what_the_server_asks():
    async def scenario():
        queue: WorkQueue[str] = WorkQueue()
        assert queue.retry("a", at_least=7) == 7

    simulate(scenario())


def test_bursts_stay_linear():
    """A queue that searches for its next key would take minutes here."""

    async def scenario():
        queue: WorkQueue[int] = WorkQueue()
        for key in range(50_000):
            queue.add(key, Lane.REPORT)
            queue.add(key, Lane.ACT)
        taken = 0
        while not queue.idle:
            key, _ = await queue.get()
            queue.done(key)
            taken += 1
        assert taken == 50_000

    simulate(scenario())
