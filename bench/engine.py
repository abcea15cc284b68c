"""The engine's batch step beside llama-batched-bench's, and what everything around that step takes."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench import load, peers, prompts, steps
from bench.servers import THREADS, Server, Shape, cpu_seconds, ours
from bench.serving import OLLAMA, WHOLE_VOCABULARY
from slm_contract import metrics

BATCHES = (1, 4, 8, 16)
SHORT_RUNS = 3
"""Runs of the step alone in each round: one takes seconds, in which a shared machine may be a quarter faster or slower."""
STREAMS = 8
SAMPLINGS: dict[str, dict[str, float]] = {
    "greedy": {},
    "Ollama's defaults": OLLAMA,
    "temperature 1, whole vocabulary": WHOLE_VOCABULARY,
}


def batch_steps(model: Path, rounds: int) -> list[dict[str, Any]]:
    """Tokens/s of both, alternating, for each size of batch."""
    rows = []
    for streams in BATCHES:
        speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(SHORT_RUNS * rounds):
            sides = {"ours": _our_steps, "theirs": _batched_bench}
            for name in sorted(sides, reverse=bool(number % 2)):
                speeds[name].append(sides[name](model, streams))
        ratios = [mine / other for mine, other in zip(speeds["ours"], speeds["theirs"], strict=True)]
        rows.append({"streams": streams, **speeds})
        print(f"{model.stem}: step of {streams}: ratio {statistics.median(ratios):.2f}", flush=True)
    return rows


def _our_steps(model: Path, streams: int) -> float:
    command = [sys.executable, "-m", "bench.steps", str(model), str(streams), str(THREADS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["tokens/s"])


def _batched_bench(model: Path, streams: int) -> float:
    folder = peers.folder()
    command = [str(folder / "llama-batched-bench"), "--model", str(model)]
    command += ["--ctx-size", str(steps.CONTEXT * streams), "--flash-attn", "on"]
    command += ["--threads", str(THREADS), "--threads-batch", str(THREADS), "--output-format", "jsonl"]
    command += ["-npp", str(steps.PROMPT), "-ntg", str(steps.TOKENS), "-npl", str(streams)]
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    return float(json.loads(line)["speed_tg"])


@dataclass(frozen=True)
class Around:
    """What is not the engine's own step, while some streams run."""

    tokens_per_second: float
    loop: float
    """Share of the step loop's time that is scheduling, sampling and sending."""
    everything: float
    """Share of the whole time, from the first request to the last token: also HTTP, templates, waits."""
    api_cpu: float
    """CPU seconds a second of the API process, on whichever core is free."""


def around(model: Path, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, sampling in SAMPLINGS.items():
        with ours(Shape(model, STREAMS, 1024)) as server:
            uvloop.run(_round(server, 0, {}))
            seen = [uvloop.run(_round(server, number + 1, sampling)) for number in range(rounds)]
        row = {
            figure: statistics.median(getattr(each, figure) for each in seen)
            for figure in ("tokens_per_second", "loop", "everything", "api_cpu")
        }
        rows.append({"sampling": name, **row})
        print(f"{model.stem}: around the step, {name}: {row}", flush=True)
    return rows


async def _round(server: Server, number: int, sampling: dict[str, float]) -> Around:
    bodies = [
        prompts.chat(prompts.words(40, seed=number * 1000 + each), 128, **sampling) for each in range(STREAMS)
    ]
    before, cpu, begin = await _seconds(server), cpu_seconds(server.pid), time.perf_counter()
    traces = await load.together(server.url, bodies)
    wall = max(trace.ended for trace in traces) - begin
    api = cpu_seconds(server.pid) - cpu
    after = await _seconds(server)
    engine, busy = after[0] - before[0], after[1] - before[1]
    return Around(load.tokens_per_second(traces), 1 - engine / busy, 1 - engine / wall, api / wall)


async def _seconds(server: Server) -> tuple[float, float]:
    """Of the engine's step, and of the step loop, so far."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.ops_url}/metrics") as response,
    ):
        lines = dict(
            line.split(" ", 1) for line in (await response.text()).splitlines() if not line.startswith("#")
        )
    return float(lines[f"{metrics.ENGINE_SECONDS}_total"]), float(lines[f"{metrics.STEP_SECONDS}_total"])
