"""What is printed: tables for people, JSON or YAML for programs, colour only on a terminal."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import IO, Any, Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Colour(Enum):
    GOOD = "32"
    WAITING = "33"
    BAD = "31"
    FAINT = "2"
    STRONG = "1"


def wants_colour(stream: IO[str]) -> bool:
    """Whether people read it, who haven't said that they want none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: Colour | None, stream: IO[str] | None = None) -> str:
    if colour is None or not wants_colour(stream or sys.stdout):
        return text
    return f"\x1b[{colour.value}m{text}\x1b[0m"


def takes_format(parser: argparse.ArgumentParser) -> None:
    """Add `-o json|yaml`."""
    parser.add_argument(
        "-o", "--output", choices=("json", "yaml"), help="for programs; without it, a table for people"
    )


def emit(document: Any, form: str | None) -> bool:
    """Print it for programs, where that was asked for; whether it was."""
    if form is None:
        return False
    if form == "yaml":
        import yaml

        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    else:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    return True


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], status: int | None = None) -> str:
    """Columns of equal width, as kubectl has them; `status` is the column that is coloured by what it says."""
    lines = [list(headers), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    printed = []
    for number, line in enumerate(lines):
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        if status is not None and number:
            cells[status] = coloured(cells[status], tone(line[status]))
        printed.append("   ".join(cells).rstrip())
    return "\n".join(printed)


def tone(reason: str) -> Colour:
    """Of a reason of the Ready condition."""
    if reason in {"Serving", "Suspended", "ScaledToZero"}:
        return Colour.GOOD
    on_the_way = {
        "Inspecting",
        "Fetching",
        "Quantizing",
        "Loading",
        "Starting",
        "RollingOut",
        "Stopping",
        "Waiting",
    }
    return Colour.WAITING if reason in on_the_way else Colour.BAD


def facts(pairs: Iterable[tuple[str, str | None]]) -> str:
    """`name   value` lines; those without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name + ':':<{width + 3}}{_indented(value, width + 3)}" for name, value in shown)


def _indented(text: str, width: int) -> str:
    return text.replace("\n", "\n" + " " * width)


def size(count: float | None) -> str:
    """Bytes, in binary units: `1.2 GiB`."""
    if count is None:
        return ""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_UNITS[unit]}"


def age(timestamp: str | None, now: datetime | None = None) -> str:
    """Since then, in one unit as kubectl has it: `52s`, `4m`, `3d`."""
    if not timestamp:
        return ""
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(timestamp)).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length or (unit == "d" and seconds >= length):
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"
