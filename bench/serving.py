"""Serving, side by side with llama-server: every figure a ratio within one run, the two alternating, median of several."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import load, prompts
from bench.servers import SERVERS, Server, Shape

Measure = Callable[[Server, int], Awaitable[dict[str, float]]]
"""Loads one running server; the number makes prompts of this round new to it."""


@dataclass(frozen=True)
class Row:
    """One load, and what is read off it."""

    name: str
    shape: Callable[[Path], Shape]
    measure: Measure
    reaches: dict[str, str]
    """Of the measured figures, those whose ratio counts, and what it is to reach."""


@dataclass(frozen=True)
class Result:
    row: Row
    ours: Sequence[dict[str, float]]
    """Round by round."""
    theirs: Sequence[dict[str, float]]
    commands: dict[str, str]

    def ratios(self, figure: str) -> list[float]:
        """Ours to theirs, round by round."""
        return [mine[figure] / other[figure] for mine, other in zip(self.ours, self.theirs, strict=True)]


def streams(count: int, tokens: int, **sampling: float) -> Measure:
    async def measure(server: Server, number: int) -> dict[str, float]:
        bodies = [
            prompts.chat(prompts.words(40, seed=number * 1000 + each), tokens, **sampling)
            for each in range(count)
        ]
        traces = await load.together(server.url, bodies)
        return {
            "tokens/s": load.tokens_per_second(traces),
            "decode tokens/s": statistics.median(load.decode_tokens_per_second(trace) for trace in traces),
            "first token s": load.median_first_token(traces),
        }

    return measure


async def shared_system_prompt(server: Server, number: int) -> dict[str, float]:
    system = prompts.words(900, seed=number)
    bodies = [
        prompts.chat(prompts.words(8, seed=number * 1000 + each), 8, system=system) for each in range(16)
    ]
    traces = await load.together(server.url, bodies)
    return {"first token s": load.median_first_token(traces), "prompt tokens": traces[0].prompt_tokens}


async def long_prompt_among_streams(server: Server, number: int) -> dict[str, float]:
    """Four streams run; a 2,000-token prompt arrives: how long do they stand still, how long does it wait?"""
    async with load.client(8) as session:
        running = [
            asyncio.create_task(
                load.stream(
                    session, server.url, prompts.chat(prompts.words(40, seed=number * 1000 + each), 600)
                )
            )
            for each in range(4)
        ]
        await asyncio.sleep(2)
        late = await load.stream(
            session, server.url, prompts.chat(prompts.words(1800, seed=number * 1000 + 99), 4)
        )
        await asyncio.sleep(0.2)
        for task in running:
            task.add_done_callback(lambda _: None)
        traces = await asyncio.gather(*running)
    return {
        "longest gap s": max(trace.longest_gap(late.sent, late.arrivals[0]) for trace in traces),
        "its first token s": late.first_token_seconds,
        "prompt tokens": late.prompt_tokens,
    }


OLLAMA = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0}
WHOLE_VOCABULARY = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
NUCLEUS = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0}


def rows() -> list[Row]:
    def shape(count: int, context: int) -> Callable[[Path], Shape]:
        return lambda model: Shape(model, count, context)

    def speed(name: str, count: int, tokens: int, reach: str, **sampling: float) -> Row:
        return Row(name, shape(count, 1024), streams(count, tokens, **sampling), {"tokens/s": reach})

    return [
        Row(
            "1 stream",
            shape(1, 1024),
            streams(1, 256),
            {"tokens/s": "≥ 0.97", "start s": "ours with a first token made"},
        ),
        speed("4 streams", 4, 192, "≥ 1.0"),
        speed("8 streams", 8, 128, "≥ 1.0"),
        speed("16 streams", 16, 96, "≥ 1.0"),
        speed("8 streams, Ollama's sampling", 8, 128, "≥ 1.0", **OLLAMA),
        speed("8 streams, temperature 1, whole vocabulary", 8, 128, "≥ 1.0", **WHOLE_VOCABULARY),
        speed("8 streams, top_p 0.9 without top_k", 8, 128, "≥ 1.0", **NUCLEUS),
        Row(
            "16 cold clients, one 1,000-token system prompt (median)",
            shape(16, 1536),
            shared_system_prompt,
            {"first token s": "≤ 0.25"},
        ),
        Row(
            "4 running streams while a 2,000-token prompt comes in",
            shape(5, 4096),
            long_prompt_among_streams,
            {"longest gap s": "≤ 0.2", "its first token s": "≤ 1.3"},
        ),
    ]


def compare(row: Row, model: Path, rounds: int) -> Result:
    """Alternate the two servers *rounds* times, each started anew, after one request that warms it up."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in SERVERS}
    commands: dict[str, str] = {}
    for number in range(rounds):
        order = list(SERVERS) if number % 2 == 0 else list(reversed(SERVERS))
        for name in order:
            with SERVERS[name](row.shape(model)) as server:
                commands[name] = server.command
                figures[name].append(uvloop.run(_warm_then(row.measure, server, number)))
            time.sleep(0.5)
    return Result(row, figures["slm-runtime"], figures["llama-server"], commands)


async def _warm_then(measure: Measure, server: Server, number: int) -> dict[str, float]:
    await load.together(server.url, [prompts.chat("Hello.", 8)])
    return {"start s": server.start_seconds, **await measure(server, number + 1)}
