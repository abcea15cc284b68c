"""`python -m bench [steady] [serving] [engine] [operator] [fetch] ...`: measure, save, and write docs/benchmarks.md anew."""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import uvloop

from bench import endurance, engine, models, page, serving, steady
from bench.fetch import __main__ as fetch
from bench.operator import __main__ as operator
from bench.servers import Shape, ours


def measure_serving(rounds: int, only: str) -> None:
    names = [row.name for row in serving.rows()]
    for label, model in models.both():
        before = page.saved(f"serving-{label}") if only else None
        rows = {row["name"]: row for row in before["rows"]} if before else {}
        for row in serving.rows():
            if only not in row.name:
                continue
            result = serving.compare(row, model, rounds)
            sides = {"ours": result.ours, "theirs": result.theirs, "commands": result.commands}
            rows[row.name] = {"name": row.name, "reaches": row.reaches, **sides}
            for figure, reach in row.reaches.items():
                ratio = statistics.median(result.ratios(figure))
                print(f"{model.stem:28} {row.name:60} {figure:20} ratio {ratio:.2f} ({reach})", flush=True)
            # After each row: a run takes long, and may be cut off.
            in_order = [rows[name] for name in names if name in rows]
            page.save(f"serving-{label}", {"model": model.stem, "rows": in_order})


def measure_steady(rounds: int, only: str) -> None:
    for label, model in models.both():
        saved = []
        for row in steady.rows():
            if only not in row.name:
                continue
            sides = steady.compare(row, model, rounds)
            about = {"name": row.name, "fill": row.fill.name, "figure": row.figure, "reach": row.reach}
            saved.append({**about, "sides": sides})
            for figure in (row.figure, "CPU s"):
                ratio = statistics.median(steady.ratios(sides["slm-runtime"], figure))
                print(
                    f"{model.stem:28} {row.name:60} {row.fill.name:24} {figure:16} steady to fresh {ratio:.2f}"
                )
            if not only:
                page.save(f"steady-{label}", {"model": model.stem, "rows": saved})


def measure_engine(rounds: int, _: str) -> None:
    for label, model in models.both():
        batches = engine.batch_steps(model, rounds)
        around = engine.around(model, rounds)
        page.save(f"engine-{label}", {"model": model.stem, "batches": batches, "around": around})


def measure_endurance(_rounds: int, _: str) -> None:
    shape = Shape(Path(models.shipped()), 8, 1024)
    with ours(shape) as server:
        result = uvloop.run(endurance.overload(server, 8))
        print(result, flush=True)
    with ours(shape) as server:
        growth = uvloop.run(endurance.mixed(server, 8))
        print(growth, f"{growth.share:.2%}", flush=True)
    page.save("endurance", {"overload": asdict(result), "growth": {**asdict(growth), "share": growth.share}})


def measure_operator(rounds: int, _: str) -> None:
    page.save("operator", operator.measure(500, min(rounds, 2), 100))


def measure_fetch(rounds: int, _: str) -> None:
    page.save("fetch", fetch.measure(rounds))


MEASUREMENTS: dict[str, Callable[[int, str], None]] = {
    "steady": measure_steady,
    "serving": measure_serving,
    "engine": measure_engine,
    "endurance": measure_endurance,
    "operator": measure_operator,
    "fetch": measure_fetch,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("measurement", nargs="*", default=list(MEASUREMENTS), help=", ".join(MEASUREMENTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only",
        default="",
        help="of serving and steady: the rows whose names contain this; serving saves them beside the others",
    )
    arguments = parser.parse_args()
    for name in arguments.measurement:
        if name not in MEASUREMENTS:
            parser.error(f"no measurement is called {name}; there are: {', '.join(MEASUREMENTS)}")
    names = {row.name for row in serving.rows()} | {row.name for row in steady.rows()}
    if not any(arguments.only in name for name in names):
        parser.error(f"no row of serving or steady has {arguments.only!r} in its name")
    for name in arguments.measurement:
        MEASUREMENTS[name](arguments.rounds, arguments.only)
    page.write()


if __name__ == "__main__":
    main()
