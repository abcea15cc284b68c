"""A model that nobody asks for leaves memory, and comes back with the next request."""

import asyncio
import os
import signal
import time

import pytest

from slm_runtime.engine.client import DeadlineExceeded, EngineUnavailable
from slm_runtime.engine.messages import EmbedRequest, RequestFinished
from tests.runtime.engine import supervised
from tests.runtime.engine.supervised import answer, ask

BRIEF = 0.05


def engine(*, keep_alive=BRIEF, **settings):
    return supervised.engine(context_length=20000, settings={"keep_alive": keep_alive, **settings})


async def unloaded(supervisor):
    """Until the process is gone."""
    async with asyncio.timeout(20):
        while supervisor.state != "Unloaded" or supervisor.pid is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_it_leaves_when_idle_and_comes_back_when_asked():
    async with engine() as supervisor:
        info = await supervisor.ready()
        first = await answer(supervisor, ask())
        for round_ in range(1, 3):
            await unloaded(supervisor)
            # What is known of it stays known, and its totals go on.
            assert supervisor.info == info
            assert supervisor.stats.generated_tokens == 8 * round_
            assert supervisor.stats.kv_cells_used == 0
            again = await answer(supervisor, ask())
            assert [e.text for e in again[:-2]] == [e.text for e in first[:-2]]
        assert supervisor.restarts == 0
        assert supervisor.stalled_seconds == 0


async def test_it_stays_where_nothing_else_is_written():
    async with engine(keep_alive=None) as supervisor:
        await supervisor.ready()
        await answer(supervisor, ask())
        pid = supervisor.pid
        await asyncio.sleep(4 * BRIEF)
        assert (supervisor.state, supervisor.pid) == ("Ready", pid)


async def test_it_stays_while_it_works():
    async with engine() as supervisor:
        await supervisor.ready()
        pid = supervisor.pid
        async with await supervisor.generate(ask(max_tokens=None)) as generation:
            began = time.monotonic()
            async for event in generation:
                assert not isinstance(event, RequestFinished)
                if time.monotonic() - began > 4 * BRIEF:
                    break
            assert (supervisor.state, supervisor.pid) == ("Ready", pid)
        await unloaded(supervisor)


async def test_all_that_come_while_it_is_away_are_served_by_one_process():
    async with engine() as supervisor:
        await supervisor.ready()
        await unloaded(supervisor)
        *answers, tokens, embedded, info = await asyncio.gather(
            *[answer(supervisor, ask(f"number {n}")) for n in range(5)],
            supervisor.tokenize("abc"),
            supervisor.embed(EmbedRequest(inputs=[[3, 4]])),
            supervisor.ready(),
        )
        assert all(isinstance(events[-1], RequestFinished) for events in answers)
        assert len(tokens) == 3
        assert len(embedded.vectors) == 1
        assert info == supervisor.info
        assert supervisor.restarts == 0


async def test_who_goes_while_it_loads_leaves_nothing_behind():
    async with engine() as supervisor:
        await supervisor.ready()
        await unloaded(supervisor)
        waiting = asyncio.create_task(supervisor.generate(ask(max_tokens=None)))
        while supervisor.state != "Reloading":  # noqa: ASYNC110
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # It loads for nobody, and leaves again.
        await unloaded(supervisor)
        assert supervisor.stats.generated_tokens == 0


async def test_a_deadline_ends_the_wait():
    async with engine() as supervisor:
        await supervisor.ready()
        await unloaded(supervisor)
        with pytest.raises(DeadlineExceeded, match="started"):
            await supervisor.generate(ask(deadline=time.monotonic() - 1))
        await answer(supervisor, ask())


async def test_a_load_that_takes_too_long_is_given_up():
    async with engine(reload_seconds=0.001) as supervisor:
        await supervisor.ready()
        await unloaded(supervisor)
        with pytest.raises(EngineUnavailable, match="load the model within"):
            await answer(supervisor, ask())
        assert "3 times in a row" in await supervisor.failed()


async def test_a_death_while_it_loads_is_a_death():
    async with engine() as supervisor:
        await supervisor.ready()
        await unloaded(supervisor)
        waiting = asyncio.create_task(answer(supervisor, ask()))
        async with asyncio.timeout(20):
            while supervisor.pid is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        os.kill(supervisor.pid, signal.SIGKILL)
        assert isinstance((await waiting)[-1], RequestFinished)
        assert supervisor.restarts == 1


async def test_closing_an_unloaded_one_is_quick_and_final():
    async with engine() as supervisor:
        await supervisor.ready()
        await unloaded(supervisor)
        await supervisor.close()
        assert supervisor.pid is None
        with pytest.raises(EngineUnavailable):
            await supervisor.generate(ask())
