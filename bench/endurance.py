"""What happens over time: far too much load, and ten minutes of clients that come, go and change their minds."""

import asyncio
import collections
import random
import time
from dataclasses import dataclass

import aiohttp

from bench import load, prompts
from bench.servers import Server, resident_bytes

CLIENT_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


@dataclass(frozen=True)
class Overload:
    offered_per_second: float
    capacity_per_second: float
    answers: dict[str, int]
    """By status code; `error` is a connection that broke."""
    livez_p99_ms: float
    livez_failures: int
    restarts: int


async def capacity(server: Server, streams: int) -> float:
    """Requests a second that are finished when *streams* clients ask without a pause."""
    async with load.client(streams) as session:
        done = 0
        until = time.perf_counter() + 10

        async def ask(number: int) -> None:
            nonlocal done
            while time.perf_counter() < until:
                await load.stream(session, server.url, _small(number))
                number += streams
                done += 1

        begin = time.perf_counter()
        await asyncio.gather(*(ask(number) for number in range(streams)))
        return done / (time.perf_counter() - begin)


async def overload(server: Server, streams: int, seconds: float = 60) -> Overload:
    """Ten times the measured capacity, open loop: a slow answer slows no arrival."""
    able = await capacity(server, streams)
    rate = 10 * able
    answers: collections.Counter[str] = collections.Counter()
    waits: list[float] = []
    failures = 0
    running = True

    async with load.client(0) as session:

        async def ask(number: int) -> None:
            try:
                trace = await load.stream(session, server.url, _small(100_000 + number))
                answers[str(trace.status)] += 1
            except CLIENT_ERRORS:
                answers["error"] += 1

        async def probe() -> None:
            nonlocal failures
            while running:
                begin = time.perf_counter()
                async with session.get(f"{server.ops_url}/livez") as response:
                    await response.read()
                    failures += response.status != 200
                waits.append(time.perf_counter() - begin)
                await asyncio.sleep(0.1)

        probing = asyncio.create_task(probe())
        begin = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(number)))
        await asyncio.gather(*tasks)
        running = False
        await probing
        restarts = await _restarts(session, server)
    waits.sort()
    return Overload(rate, able, dict(answers), waits[int(len(waits) * 0.99)] * 1000, failures, restarts)


async def _restarts(session: aiohttp.ClientSession, server: Server) -> int:
    async with session.get(f"{server.ops_url}/report") as response:
        return int((await response.json()).get("engineRestarts", 0))


def _small(number: int) -> dict[str, object]:
    return prompts.chat(prompts.words(20, seed=number), 16)


@dataclass(frozen=True)
class Growth:
    requests: int
    cancelled: int
    after_a_minute: int
    """Bytes resident, of all the server's processes."""
    at_the_end: int

    @property
    def share(self) -> float:
        return self.at_the_end / self.after_a_minute - 1


async def mixed(server: Server, streams: int, seconds: float = 600) -> Growth:
    """Short and long prompts, streamed and not, every third one abandoned half-way."""
    chooser = random.Random(0)
    requests = cancelled = 0
    begin = time.perf_counter()
    after_a_minute = 0

    async with load.client(streams) as session:

        async def ask() -> None:
            nonlocal requests, cancelled
            while time.perf_counter() - begin < seconds:
                requests += 1
                body = prompts.chat(
                    prompts.words(chooser.choice((10, 60, 300)), seed=chooser.randrange(10**9)),
                    chooser.choice((8, 32, 96)),
                )
                patience = chooser.uniform(0.05, 2) if chooser.random() < 1 / 3 else 600
                try:
                    async with asyncio.timeout(patience):
                        await load.stream(session, server.url, body)
                except TimeoutError:
                    cancelled += 1

        async def weigh() -> None:
            nonlocal after_a_minute
            await asyncio.sleep(60)
            after_a_minute = resident_bytes(server.pid)

        await asyncio.gather(weigh(), *(ask() for _ in range(streams)))
    return Growth(requests, cancelled, after_a_minute, resident_bytes(server.pid))
