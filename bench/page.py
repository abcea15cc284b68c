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
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    positions = [int(row["name"].split()[0]) for row in counts]
    for side, name, colour in (("ours", "slm-runtime", "#1b7f5c"), ("theirs", "llama-server", "#8a8f98")):
        left.plot(positions, [row[side]["tokens/s"] for row in counts], "o-", color=colour, label=name)
    left.set_xlabel("streams")
    left.set_xticks(positions)
    left.set_ylabel("tokens/s, all streams")
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    waits = [row for name, row in rows.items() if row not in counts]
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
    right.set_xticks(range(len(waits)), titles[: len(waits)], fontsize=8)
    right.set_ylabel("seconds, less is better")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path = PLOTS / f"serving-{label}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return [f"![Throughput, first tokens and gaps, {label}](plots/{path.name})"]
