"""`python -m bench [serving] [endurance] [operator] ...`: measure, save, and write docs/benchmarks.md anew."""

import argparse
import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import endurance, models, page, serving
from bench.operator import __main__ as operator
from bench.servers import Shape, ours


def measure_serving(rounds: int) -> None:
    for label, model in (("shipped", models.shipped()), ("q4_0", models.requantised())):
        results = []
        commands: dict[str, str] = {}
        for row in serving.rows():
            result = serving.compare(row, model, rounds)
            commands |= result.commands
            results.append(described(result))
            print(
                f"{model.stem:36} {row.name:80} {result.ours[row.figure]:9.3f} {result.theirs[row.figure]:9.3f} "
                f"ratio {result.ratio:.2f} (reach {row.reach})",
                flush=True,
            )
        page.save(f"serving-{label}", {"model": model.stem, "rows": results, "commands": commands})


def described(result: serving.Result) -> dict[str, Any]:
    row = result.row
    return {
        "name": row.name,
        "figure": row.figure,
        "reach": row.reach,
        "ours": result.ours,
        "theirs": result.theirs,
        "ratios": list(result.ratios),
        "ratio": result.ratio,
        "commands": result.commands,
    }


def measure_endurance(_: int) -> None:
    shape = Shape(Path(models.shipped()), 8, 1024)
    with ours(shape) as server:
        result = asyncio.run(endurance.overload(server, 8))
        print(result, flush=True)
    with ours(shape) as server:
        growth = asyncio.run(endurance.mixed(server, 8))
        print(growth, f"{growth.share:.2%}", flush=True)
    page.save("endurance", {"overload": asdict(result), "growth": {**asdict(growth), "share": growth.share}})


def measure_operator(rounds: int) -> None:
    page.save("operator", operator.measure(500, min(rounds, 2), 100))


MEASUREMENTS: dict[str, Callable[[int], None]] = {
    "serving": measure_serving,
    "endurance": measure_endurance,
    "operator": measure_operator,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("measurement", nargs="*", default=list(MEASUREMENTS), help=", ".join(MEASUREMENTS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.measurement:
        if name not in MEASUREMENTS:
            parser.error(f"no measurement is called {name}; there are: {', '.join(MEASUREMENTS)}")
    for name in arguments.measurement:
        MEASUREMENTS[name](arguments.rounds)
    page.write()


if __name__ == "__main__":
    main()
