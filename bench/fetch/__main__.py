"""`python -m bench.fetch [--rounds 5]`: measure, print, and save for docs/benchmarks.md."""

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench import page
from bench.fetch import sides
from tests.cluster.host import Package, require
from tests.support.measured import interpreter
from tests.support.nginx import nginx

CURL = Package("curl", "curl", "the other side")


def measure(rounds: int) -> dict[str, Any]:
    """Let the two sides take turns."""
    require((CURL,))
    both: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    with TemporaryDirectory(prefix="slm-bench-fetch-") as folder:
        root = Path(folder, "served")
        root.mkdir()
        sides.publish(root)
        with nginx(root) as address:
            for _ in range(rounds):
                for name, side in (("theirs", sides.theirs), ("ours", sides.ours)):
                    run = side(address, Path(folder, name))
                    both[name].append(asdict(run))
                    print(f"{name:7} {run}", flush=True)
    size = sides.FILES * sides.FILE_BYTES
    return {"bytes": size, "files": sides.FILES, **both, "interpreter": asdict(interpreter())}


def table(document: dict[str, Any]) -> list[str]:
    """For docs/benchmarks.md."""

    def series(side: str, figure: str) -> list[float]:
        return [run[figure] for run in document[side]]

    lines = [
        "| figure | slm-runtime fetch | curl, then sha256sum | ratio | rounds | reach |",
        "|---|---:|---:|---:|---|---|",
    ]
    for figure, label, reach in (("seconds", "seconds", "≤ 0.5"), ("cpu_seconds", "CPU seconds", "")):
        ours, theirs = series("ours", figure), series("theirs", figure)
        lines.append(
            f"| {label} | {page.number(median(ours))} | {page.number(median(theirs))} "
            f"| {page.ratios(ours, theirs)} | {reach} |"
        )
    peak = max(series("ours", "peak_rss_mib")) - document["interpreter"]["peak_rss_mib"]
    lines.append(f"| MiB above a Python that does nothing | {peak:.0f} | | | | ≤ 50 |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fetch", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    document = measure(parser.parse_args().rounds)
    page.save("fetch", document)
    page.write()
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
