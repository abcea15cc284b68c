"""The steady state: a server after a few minutes, its cells full of what ended requests left, beside itself when fresh.

Each load is measured on a fresh server, then on the same one after it was filled. The CPU's seconds tell what a shared
machine's clock can't.
"""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import load, prompts
from bench.servers import SERVERS, Server, Shape, cpu_seconds, descendants
from bench.serving import Measure, shared_system_prompt, streams

Figures = dict[str, float]

_COLD_WORDS = 870
"""About 950 tokens."""
_TEXTS = 2000


async def ended_prompts(server: Server, shape: Shape, number: int) -> None:
    """More than its cells hold; no two begin alike."""
    words = min(1200, shape.context * 6 // 10)
    count = math.ceil(1.2 * shape.streams * shape.context / words)
    for begin in range(0, count, shape.streams):
        seeds = range(begin, min(begin + shape.streams, count))
        texts = [prompts.words(words, seed=number * 100_000 + seed) for seed in seeds]
        await load.together(server.url, [prompts.chat(text, 4) for text in texts])


async def long_chats(server: Server, shape: Shape, number: int) -> None:
    """A conversation a stream, turn by turn until its context is nearly full; then another."""
    words = shape.context // 12
    for chat in range(2):
        said = ["" for _ in range(shape.streams)]
        for turn in range(8):
            seed = number * 100_000 + chat * 10_000 + turn * 100
            said = [f"{text} {prompts.words(words, seed=seed + each)}" for each, text in enumerate(said)]
            await load.together(server.url, [prompts.chat(text, 8) for text in said])


async def embedded_texts(server: Server, _: Shape, number: int) -> None:
    texts = [prompts.words(12, seed=number * 100_000 + each) for each in range(_TEXTS)]
    async with load.client(1) as session:
        for begin in range(0, _TEXTS, 250):
            body = {"model": "bench", "input": texts[begin : begin + 250]}
            async with session.post(f"{server.url}/v1/embeddings", json=body) as response:
                response.raise_for_status()
                await response.read()


async def cold_prompt(server: Server, number: int) -> Figures:
    (trace,) = await load.together(
        server.url, [prompts.chat(prompts.words(_COLD_WORDS, seed=number * 1000), 2)]
    )
    return {"first token s": trace.first_token_seconds}


@dataclass(frozen=True)
class Fill:
    """Leaves a server full of what has ended."""

    name: str
    run: Callable[[Server, Shape, int], Awaitable[None]]
    """The number makes its prompts new."""
    sides: tuple[str, ...] = tuple(SERVERS)
    """Who can be filled so as both are started."""


ENDED = Fill("ended prompts", ended_prompts)
CHATS = Fill("long chats", long_chats)
EMBEDDED = Fill("2,000 embedded texts", embedded_texts, ("slm-runtime",))


@dataclass(frozen=True)
class Row:
    name: str
    shape: Callable[[Path], Shape]
    measure: Measure
    figure: str
    fill: Fill

    @property
    def reach(self) -> str:
        """Of the steady figure to the fresh one."""
        return "≥ 0.97" if "tokens/s" in self.figure else "≤ 1.03"


def rows() -> list[Row]:
    def row(name: str, measure: Measure, figure: str, fill: Fill, context: int = 2048) -> Row:
        return Row(name, lambda model: Shape(model, 16, context), measure, figure, fill)

    cold = [
        row("a cold prompt of 950 tokens", cold_prompt, "first token s", ENDED),
        row(
            "16 cold clients, one 1,000-token system prompt (median)",
            shared_system_prompt,
            "first token s",
            ENDED,
            1536,
        ),
        row("16 streams", streams(16, 96), "tokens/s", ENDED),
    ]
    decoded = [
        each
        for fill in (ENDED, CHATS, EMBEDDED)
        for each in (
            row("1 stream", streams(1, 256), "decode tokens/s", fill),
            row("8 streams", streams(8, 128), "tokens/s", fill),
        )
    ]
    return cold + decoded


def compare(row: Row, model: Path, rounds: int) -> dict[str, dict[str, list[Figures]]]:
    """By side, then fresh and steady: the figures, round by round."""
    shape = row.shape(model)
    sides = row.fill.sides
    figures: dict[str, dict[str, list[Figures]]] = {side: {"fresh": [], "steady": []} for side in sides}
    for number in range(rounds):
        for side in sorted(sides, reverse=bool(number % 2)):
            with SERVERS[side](shape) as server:
                fresh, steady = uvloop.run(_both(row, server, shape, number + 1))
            figures[side]["fresh"].append(fresh)
            figures[side]["steady"].append(steady)
            time.sleep(0.5)
    return figures


async def _both(row: Row, server: Server, shape: Shape, number: int) -> tuple[Figures, Figures]:
    await load.together(server.url, [prompts.chat("Hello.", 8)])
    fresh = await _measured(row, server, 2 * number)
    await row.fill.run(server, shape, number)
    return fresh, await _measured(row, server, 2 * number + 1)


async def _measured(row: Row, server: Server, number: int) -> Figures:
    before = _all_cpu_seconds(server.pid)
    figures = await row.measure(server, number)
    return {row.figure: figures[row.figure], "CPU s": _all_cpu_seconds(server.pid) - before}


def _all_cpu_seconds(pid: int) -> float:
    return sum(cpu_seconds(each) for each in [pid, *descendants(pid)])


def ratios(figures: dict[str, list[Figures]], figure: str) -> list[float]:
    """Of one side: steady to fresh, round by round."""
    pairs = zip(figures["steady"], figures["fresh"], strict=True)
    return [steady[figure] / fresh[figure] for steady, fresh in pairs]
