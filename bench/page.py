"""docs/benchmarks.md: tables and plots from the figures that the measurements left, each with how to repeat it.

A measurement writes `bench/results/NAME.json`; the page is made of what is there, so one of them can be run anew alone.
"""

import datetime as dt
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench import plots

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"


def save(name: str, figures: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {"measured": dt.datetime.now(dt.UTC).date().isoformat(), "machine": machine(), **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def saved(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{len(os.sched_getaffinity(0))} cores of {cpu}, Linux {platform.release()}, Python "
        f"{platform.python_version()}, llama-cpp-python {version('llama-cpp-python')}"
    )


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median in bold, and all rounds."""
    each = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return f"**{median(each):.2f}** | {', '.join(f'{ratio:.2f}' for ratio in each)}"


def serving_table(document: dict[str, Any]) -> list[str]:
    lines = [
        "| load | figure | ours | llama-server | ratio | rounds | reach |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in document["rows"]:
        for figure, reach in row["reaches"].items():
            ours, theirs = plots.series(row, "ours", figure), plots.series(row, "theirs", figure)
            lines.append(
                f"| {row['name']} | {figure} | {number(median(ours))} | {number(median(theirs))} "
                f"| {ratios(ours, theirs)} | {reach} |"
            )
    return lines


def steady_table(document: dict[str, Any]) -> list[str]:
    lines = [
        "| load | after | figure | fresh | steady | steady to fresh | rounds | reach | CPU s | llama-server | to it |",
        "|---|---|---|---:|---:|---:|---|---|---:|---:|---:|",
    ]
    for row in document["rows"]:
        figure, ours = row["figure"], row["sides"]["slm-runtime"]
        fresh, steady, fresh_cpu, steady_cpu = (
            [each[name] for each in ours[state]]
            for name in (figure, "CPU s")
            for state in ("fresh", "steady")
        )
        theirs = [each[figure] for each in row["sides"].get("llama-server", {}).get("steady", [])]
        beside = " | "
        if theirs:
            beside = (
                f"{number(median(theirs))} | {median(a / b for a, b in zip(steady, theirs, strict=True)):.2f}"
            )
        cpu = median(a / b for a, b in zip(steady_cpu, fresh_cpu, strict=True))
        lines.append(
            f"| {row['name']} | {row['fill']} | {figure} | {number(median(fresh))} | {number(median(steady))} "
            f"| {ratios(steady, fresh)} | {row['reach']} | {cpu:.2f} | {beside} |"
        )
    return lines


def engine_tables(document: dict[str, Any]) -> list[str]:
    lines = ["| sequences in a step | ours, tokens/s | llama-batched-bench | ratio | rounds | reach |"]
    lines += ["|---:|---:|---:|---:|---|---|"]
    for row in document["batches"]:
        ours, theirs = row["ours"], row["theirs"]
        lines.append(
            f"| {row['streams']} | {number(median(ours))} | {number(median(theirs))} | {ratios(ours, theirs)} | ≥ 0.95 |"
        )
    lines += [
        "",
        "Eight streams through HTTP, and what of that time is not the engine's own step:",
        "",
        "| sampling | tokens/s | scheduling, sampling, sending | everything, HTTP included | API process, CPU |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in document["around"]:
        lines.append(
            f"| {row['sampling']} | {number(row['tokens_per_second'])} | {row['loop']:.1%} | {row['everything']:.1%} "
            f"| {row['api_cpu']:.1%} of a core |"
        )
    return lines


INTRODUCTION = """# Benchmarks

Made by `make bench` (one part alone: `python -m bench serving`, likewise `steady`, `engine`, `endurance`, `operator`,
`fetch`; one load again: `python -m bench serving --only "16 streams"`); this page is written from `bench/results/`.
Figures of one row come from one run in which the two sides alternate; what counts is the ratio, since absolute figures
follow the machine. llama-server is built from the same source as our wheel, with the same flags, for the same CPU; of our
patches it gets only what it can't run without (`tests/cluster/patches/amx.patch`), not ours of attention
(`attention.patch` there) and of prefixes. Both get the same GGUF, threads, streams and context a stream, and prompts that
no other request shares.
"""

ENGINE_NOTE = """At most 5% are asked for, greedy and with Ollama's defaults; the other samplings are reported. The
API thread keeps off the loop's CPU (`slm_runtime/engine/apart.py`): before, Linux mostly woke it there, and it kept
the loop, and so the whole batch, waiting for half a millisecond a step (2 to 3% of the tokens/s). Of what the loop
itself takes with Ollama's defaults, nearly half are two passes over each row of logits for its 40 likeliest tokens
(`slm_runtime/sampling/truncation.py`). Tried against the same wait: waking by an eventfd (still on the loop's CPU in
most runs); an API thread that interrupts nobody (SCHED_BATCH: as many tokens/s with eight streams, 9% fewer with
one); threads that sleep instead of spinning between steps (`GOMP_SPINCOUNT`: 2 to 7% fewer tokens/s)."""

OPERATOR_NOTE = """A real API server, controller manager and scheduler on the same cores, pods played by a fake kubelet; etcd
without fsync. Writes are counted in the API server's audit log. The Go peer's column was measured earlier, on a machine of
the same size. The writes each are the key Secret, the ControllerRevision, the Deployment, the Service, and one status
where a pod is ready before the first is due, else two: how it begins, and that it serves. In a burst seconds to minutes
lie between them."""

SCALE_NOTE = """What holds the event loop longest is a pass of Python's garbage collector;
`slm_operator/garbage.py` keeps it from what has survived one (394 ms before, with 5,000 SLMDeployments)."""

SIZES = (800, 5000)
"""SLMDeployments of the big clusters that are told of: `python -m bench.operator --size 5000 --nodes 5000`."""

FETCH_NOTE = """nginx and both sides share this machine's cores, its loopback and its disk; the files are in the page cache.
`slm-runtime fetch` is the whole command, its start included, and has brought all bytes to the disk before it ends; curl and
sha256sum (that of coreutils) leave that to the kernel."""

STEADY_NOTE = """What a pod is after a few minutes: its cells full of what ended requests left, which may come again. Each
load is measured on a fresh server, then on the same one when it is full; the CPU's seconds, of all its processes, are
steady to fresh too. llama-server's figure is its steady one, filled in the same way. The tables of serving and of the
engine's step are of fresh servers."""

MODELS = {"shipped": "SmolLM2-135M, Q4_1 as shipped", "q4_0": "SmolLM2-135M, requantised to Q4_0"}

COMMANDS = "The two command lines of the last row (streams and context differ from row to row):"


def write() -> None:
    """Write the page from whatever has been measured."""
    from bench.fetch.__main__ import table as fetch_table
    from bench.operator.__main__ import table as operator_table
    from bench.operator.scale import table as scale_table

    sections = [INTRODUCTION]
    for label, model in MODELS.items():
        if document := saved(f"steady-{label}"):
            title = f"## The steady state, {model}"
            sections.append(_section(title, document, [STEADY_NOTE, "", *steady_table(document)]))
    for label, model in MODELS.items():
        if document := saved(f"serving-{label}"):
            drawn = plots.serving(document, label)
            commands = [f"* `{command}`" for command in document["rows"][-1]["commands"].values()]
            title = f"## Serving {model}"
            sections.append(
                _section(title, document, [*serving_table(document), "", *drawn, "", COMMANDS, "", *commands])
            )
    for label, model in MODELS.items():
        if document := saved(f"engine-{label}"):
            sections.append(_section(f"## The engine's step, {model}", document, engine_tables(document)))
    if any(saved(f"engine-{label}") for label in MODELS):
        sections.append(f"{ENGINE_NOTE}\n")
    if document := saved("endurance"):
        sections.append(_section("## Endurance", document, _endurance(document)))
    if document := saved("operator"):
        title = f"## The operator, {document['count']} SLMDeployments"
        sections.append(_section(title, document, [OPERATOR_NOTE, "", *operator_table(document)]))
    for size in SIZES:
        if document := saved(f"operator-{size}"):
            title = f"## The operator, {size:,} SLMDeployments and {document['nodes']:,} nodes"
            sections.append(_section(title, document, scale_table(document)))
    if any(saved(f"operator-{size}") for size in SIZES):
        sections.append(f"{SCALE_NOTE}\n")
    if document := saved("fetch"):
        title = f"## Fetching {document['bytes'] / 1e9:.0f} GB in {document['files']} files"
        sections.append(_section(title, document, [FETCH_NOTE, "", *fetch_table(document)]))
    PAGE.write_text("\n".join(sections))


def _section(title: str, document: dict[str, Any], lines: Sequence[str]) -> str:
    return "\n".join([title, "", _measured(document), "", *lines, ""])


def _measured(document: dict[str, Any]) -> str:
    return f"Measured {document['measured']} on {document['machine']}."


def _endurance(document: dict[str, Any]) -> list[str]:
    load, growth = document["overload"], document["growth"]
    before, after = (growth[name] / 2**20 for name in ("after_a_minute", "at_the_end"))
    return [
        "| what | figure |",
        "|---|---|",
        f"| capacity, requests/s | {load['capacity_per_second']:.1f} |",
        f"| ten times that for a minute, open loop: answers by status | {load['answers']} |",
        f"| restarts | {load['restarts']} |",
        f"| `/livez`, 99th percentile | {load['livez_p99_ms']:.0f} ms |",
        f"| mixed load: requests, of them abandoned | {growth['requests']}, {growth['cancelled']} |",
        f"| resident after a minute, at the end | {before:.0f} MiB, {after:.0f} MiB ({growth['share']:+.1%}) |",
    ]
