"""`python -m bench.operator [--count 500] [--rounds 2]`: measure, print, and save for docs/benchmarks.md.

`python -m bench.operator --size 5000 --nodes 5000` measures a big cluster instead.
"""

import argparse
import asyncio
import json
from statistics import median
from typing import Any

from bench import page
from bench.operator import bare, ours, scale
from bench.operator.stage import stage


def measure(count: int, rounds: int, singles: int) -> dict[str, Any]:
    floors: dict[str, list[float]] = {"in_turn": [], "statuses_last": []}
    bursts: list[dict[str, Any]] = []
    for number in range(rounds):
        for order, seconds in floors.items():
            with stage() as plane:
                seconds.append(asyncio.run(bare.burst(plane, count, statuses_last=order == "statuses_last")))
            print(
                f"bare client ({order}), {count} at once: {seconds[-1]:.1f} s to all Deployments", flush=True
            )
        with stage() as plane:
            bursts.append(asyncio.run(ours.burst(plane, count, thorough=number == rounds - 1)))
        print(f"operator, {count} at once: {json.dumps(bursts[-1], indent=1)}", flush=True)
    with stage() as plane:
        single = asyncio.run(ours.one_at_a_time(plane, singles))
    print(f"one at a time: {single}", flush=True)
    ratios = {
        order: median(mine["all_deployments_s"] / floor for mine, floor in zip(bursts, seconds, strict=True))
        for order, seconds in floors.items()
    }
    return {"count": count, "bare_s": floors, "bursts": bursts, "ratios": ratios, "one_at_a_time": single}


def table(document: dict[str, Any]) -> list[str]:
    """For docs/benchmarks.md: ours, the aim, and the Go peer's where it was measured the same way."""
    last, single, count = document["bursts"][-1], document["one_at_a_time"], document["count"]
    rows = [
        (f"{count} at once: seconds to all Deployments", f"{last['all_deployments_s']:.1f}", "50-72"),
        (
            "the same writes by a bare client, one after the other",
            f"{document['bare_s']['in_turn'][-1]:.1f}",
            "",
        ),
        ("... and with all statuses last, as we do", f"{document['bare_s']['statuses_last'][-1]:.1f}", ""),
        (
            "ratio to these, median of the rounds (aim 1.2)",
            f"{document['ratios']['in_turn']:.2f}, **{document['ratios']['statuses_last']:.2f}**",
            "",
        ),
        ("seconds to all Ready", f"{last['all_ready_s']:.1f}", "66-88"),
        ("writes each until Ready", f"{last['writes']['all']:.1f}", "7.1, and no rest after"),
        ("CPU seconds of the operator", f"{last['cpu_seconds']:.1f}", "39-47"),
        ("peak RSS, MiB", f"{last['peak_rss_mib']:.0f}", "107"),
        ("writes at rest in 60 s", f"{last['rest']['writes']}", "about 5,400"),
        ("one field of all: seconds to the last template", f"{last['edit']['last_template_s']:.1f}", "69"),
        ("writes each for that", f"{last['edit']['writes']['all']:.1f}", "15"),
        ("restart: writes", f"{last['restart']['writes']}", "3,057"),
        ("restart: seconds until nothing waits", f"{last['restart']['caught_up_s']:.1f}", ""),
        (
            "one at a time, create → Deployment: median / 99th, ms",
            f"{single['median_ms']:.0f} / {single['p99_ms']:.0f}",
            "16 / 135",
        ),
    ]
    lines = ["| | slm-operator | LLMKube (Go) |", "|---|---:|---:|"]
    return [*lines, *(f"| {name} | {mine} | {theirs} |" for name, mine, theirs in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--singles", type=int, default=100)
    parser.add_argument("--size", type=int, help="SLMDeployments of a big cluster")
    parser.add_argument("--nodes", type=int, default=0, help="its nodes, without kubelets")
    arguments = parser.parse_args()
    if arguments.size is not None:
        with stage() as plane:
            big = asyncio.run(scale.scaled(plane, arguments.size, arguments.nodes))
        page.save(f"operator-{arguments.size}", big)
        print(json.dumps(big, indent=1))
        return
    figures = measure(arguments.count, arguments.rounds, arguments.singles)
    page.save("operator", figures)
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
