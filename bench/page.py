"""docs/benchmarks.md: tables and plots from the figures that the measurements left, each with how to repeat it.

A measurement writes `bench/results/NAME.json`; the page is made of what is there, so one of them can be run anew alone.
"""

import datetime as dt
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "plots"


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


def serving_table(document: dict[str, Any]) -> list[str]:
    lines = [
        "| load | figure | ours | llama-server | ratio | rounds | reach |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in document["rows"]:
        figure = row["figure"]
        rounds = ", ".join(f"{ratio:.2f}" for ratio in sorted(row["ratios"]))
        lines.append(
            f"| {row['name']} | {figure} | {number(row['ours'][figure])} | {number(row['theirs'][figure])} "
            f"| **{row['ratio']:.2f}** | {rounds} | {row['reach']} |"
        )
    return lines


def plots(document: dict[str, Any], label: str) -> list[str]:
    """Draw throughput, first tokens and gaps; return the page's lines that show them."""
    import matplotlib as mpl  # heavy, and needed by nothing else

    mpl.use("svg")
    import matplotlib.pyplot as plt

    PLOTS.mkdir(parents=True, exist_ok=True)
    rows = {row["name"]: row for row in document["rows"]}
    counts = [row for name, row in rows.items() if name.endswith(("stream", "streams"))]
    waits = [row for row in rows.values() if row not in counts]
    panels = 2 if waits else 1
    figure, grid = plt.subplots(1, panels, figsize=(5 * panels, 3.6), layout="constrained", squeeze=False)
    left, right = grid[0][0], grid[0][-1]
    positions = [int(row["name"].split()[0]) for row in counts]
    for side, name, colour in (("ours", "slm-runtime", "#1b7f5c"), ("theirs", "llama-server", "#8a8f98")):
        left.plot(positions, [row[side]["tokens/s"] for row in counts], "o-", color=colour, label=name)
    left.set_xlabel("streams")
    left.set_xticks(positions)
    left.set_ylabel("tokens/s, all streams")
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    titles = [
        "first token, 16 clients,\none system prompt",
        "longest gap of 4 streams\nwhile 2,000 tokens come in",
    ]
    for index, row in enumerate(waits):
        bars = (("ours", -0.2, "#1b7f5c"), ("theirs", 0.2, "#8a8f98"))
        for side, offset, colour in bars:
            value = row[side][row["figure"]]
            right.bar(index + offset, value, 0.36, color=colour)
            right.text(index + offset, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    if waits:
        right.set_xticks(range(len(waits)), titles[: len(waits)], fontsize=8)
        right.set_ylabel("seconds, less is better")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path = PLOTS / f"serving-{label}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return [f"![Throughput, first tokens and gaps, {label}](plots/{path.name})"]


INTRODUCTION = """# Benchmarks

Made by `make bench` (one part alone: `python -m bench serving`, `python -m bench endurance`, `python -m bench operator`);
this page is written from `bench/results/`. Figures of one row come from one run in which the two sides alternate; what
counts is the ratio, since absolute figures follow the machine. llama-server is built from the same source as our wheel and
given the wheel's own CPU code (`bench/peers.py`); both get the same GGUF, threads, streams and context a stream, and prompts
that no other request shares.
"""

OPERATOR_NOTE = """A real API server, controller manager and scheduler on the same cores, pods played by a fake kubelet; etcd
without fsync. Writes are counted in the API server's audit log. The Go peer's column was measured earlier, on a machine of
the same size."""

SERVING_TITLES = {
    "shipped": "Serving SmolLM2-135M, Q4_1 as shipped",
    "q4_0": "Serving SmolLM2-135M, requantised to Q4_0",
}


def write() -> None:
    """Write the page from whatever has been measured."""
    from bench.operator.__main__ import table as operator_table

    sections = [INTRODUCTION]
    for label, title in SERVING_TITLES.items():
        document = saved(f"serving-{label}")
        if document:
            commands = [f"* {name}: `{command}`" for name, command in sorted(document["commands"].items())]
            sections.append("\n".join([f"## {title}", "", _measured(document), ""]))
            sections.append(
                "\n".join([*serving_table(document), "", *plots(document, label), "", *commands, ""])
            )
    endurance = saved("endurance")
    if endurance:
        sections.append("\n".join(["## Endurance", "", _measured(endurance), "", *_endurance(endurance), ""]))
    operator = saved("operator")
    if operator:
        title = f"## The operator, {operator['count']} SLMDeployments"
        sections.append(
            "\n".join([title, "", _measured(operator), "", OPERATOR_NOTE, "", *operator_table(operator), ""])
        )
    PAGE.write_text("\n".join(sections))


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
