"""The plots of docs/benchmarks.md: throughput against streams, first tokens, gaps."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "plots"
SIDES = (("ours", "slm-runtime", "#1b7f5c"), ("theirs", "llama-server", "#8a8f98"))


def series(row: dict[str, Any], side: str, figure: str) -> list[float]:
    """One figure of one side, round by round."""
    return [each[figure] for each in row[side]]


def serving(document: dict[str, Any], label: str) -> list[str]:
    """Draw one model's figures; return the page's lines that show them."""
    import matplotlib as mpl  # heavy, and needed by nothing else

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "the same figures, the same file"
    import matplotlib.pyplot as plt

    FOLDER.mkdir(parents=True, exist_ok=True)
    counts = [row for row in document["rows"] if row["name"].split()[-1] in {"stream", "streams"}]
    waits = [
        (title, row, figure)
        for row in document["rows"]
        for figure, title in (
            ("first token s", "first token,\n16 clients,\none system prompt"),
            ("longest gap s", "longest gap of\n4 streams while\n2,000 tokens come"),
            ("its first token s", "first token\nof these\n2,000 tokens"),
        )
        if figure in row["reaches"]
    ]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    _lines(left, counts, "tokens/s", "tokens/s, all streams")
    _lines(middle, counts, "first token s", "time to first token, s")
    for place, (_, row, name) in enumerate(waits):
        for offset, (side, _, colour) in zip((-0.2, 0.2), SIDES, strict=True):
            value = median(series(row, side, name))
            right.bar(place + offset, value, 0.36, color=colour)
            right.text(place + offset, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    right.set_xticks(range(len(waits)), [title for title, _, _ in waits], fontsize=8)
    right.set_ylabel("seconds, less is better")
    left.legend(frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    path = FOLDER / f"serving-{label}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return [f"![Throughput, first tokens and gaps, {label}](plots/{path.name})"]


def _lines(axes: Any, rows: Sequence[dict[str, Any]], figure: str, title: str) -> None:
    positions = [int(row["name"].split()[0]) for row in rows]
    for side, name, colour in SIDES:
        axes.plot(
            positions, [median(series(row, side, figure)) for row in rows], "o-", color=colour, label=name
        )
    axes.set_xlabel("streams")
    axes.set_xticks(positions)
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
