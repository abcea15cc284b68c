"""Make the generated parts of the chart: the table of values in its README, its copy of the CRDs, alerts and dashboards.

``python -m tests.chart.generate`` writes them; the tests compare them with what this module would write.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.chart import alerts, dashboards
from tests.cluster.chart import CHART

ROOT = Path(__file__).parents[2]
BEGIN = "<!-- values: made from values.yaml by `python -m tests.chart.generate` -->"
END = "<!-- end of values -->"


class UndescribedValue(ValueError):
    """A value has no comment above it."""


@dataclass(frozen=True)
class Value:
    """One row of the table."""

    path: str
    default: str
    """As JSON on one line."""
    description: str


def values(text: str) -> list[Value]:
    """Every value of a values file, in its order.

    A map is gone into where a key of it carries a comment; else it is one value.

    Raises
    ------
    UndescribedValue
        The comment above a value is missing.
    """
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("a values file is a map")
    return list(_walk(root, text.splitlines(), ""))


def _walk(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        comment = _comment_above(lines, key.start_mark.line)
        line = key.start_mark.line
        if not comment:
            raise UndescribedValue(f"values.yaml, line {line + 1}: say in a comment what {path} is for")
        if isinstance(value, yaml.MappingNode) and any(
            inner.start_mark.line > line and _comment_above(lines, inner.start_mark.line)
            for inner, _ in value.value
        ):
            yield from _walk(value, lines, f"{path}.")
        else:
            default = yaml.safe_load(yaml.serialize(value))
            yield Value(path, json.dumps(default), comment)


def _comment_above(lines: list[str], line: int) -> str:
    """The comment lines directly above *line* (counted from 0), joined; empty where there are none."""
    found: list[str] = []
    while line > 0 and (match := re.match(r"\s*#\s?(.*)", lines[line - 1])):
        found.insert(0, match[1].strip())
        line -= 1
    return " ".join(found)


def table(rows: list[Value]) -> str:
    """The rows as a Markdown table."""
    cells = [f"| `{row.path}` | {_cell(row.description)} | `{_cell(row.default)}` |" for row in rows]
    return "\n".join(["| Value | Meaning | Default |", "|---|---|---|", *cells])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def readme(current: str, values_text: str) -> str:
    """The README with its table made anew; the prose around it stays."""
    before, rest = current.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table(values(values_text))}\n\n{END}{after}"


def crd_copies() -> dict[Path, str]:
    """The chart's copies of the CRDs: path in the chart to content."""
    sources = sorted((ROOT / "crds").glob("*.yaml"))
    return {CHART / "files" / "crds" / source.name: source.read_text() for source in sources}


def generated() -> dict[Path, str]:
    """Every made file of the chart with the content that it should have."""
    path = CHART / "README.md"
    files = CHART / "files"
    return {
        path: readme(path.read_text(), (CHART / "values.yaml").read_text()),
        files / "rules.yaml": alerts.rules_text(),
        **{
            files / "dashboards" / f"{name}.json": dashboards.text(each)
            for name, each in dashboards.ALL.items()
        },
        **crd_copies(),
    }


def main() -> None:
    wanted = generated()
    for stale in set((CHART / "files" / "crds").glob("*.yaml")) - set(wanted):
        stale.unlink()
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
