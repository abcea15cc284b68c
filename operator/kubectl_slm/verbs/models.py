"""`kubectl slm models`: the site's catalog, and what is deployed of it."""

import argparse
import re
from collections.abc import Mapping
from typing import Any, Final

from kubectl_slm import output, read
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError, Exit

Entry = Mapping[str, Any]
"""Of the catalog, as the operator's configuration has it."""

HELP: Final = "the catalog of the site: what `run` and `pull` know by a name"
_LIMITS: Final[Mapping[str, float]] = {"small": 2e9, "medium": 6e9, "large": float("inf")}
"""Parameters below which a model is of that size; 135M to 1.9B are small."""
_UNITS: Final[Mapping[str, float]] = {"M": 1e6, "B": 1e9, "T": 1e12}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", choices=tuple(_LIMITS), help="below 2 billion parameters, below 6, the others"
    )
    parser.add_argument(
        "--type", metavar="WORD", help="in its name or source, such as instruct, coder or embed"
    )
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    from kubectl_slm.documents import operators_config

    cluster = Cluster.of(args)
    catalog: dict[str, Entry] = operators_config(cluster)[0].get("catalog") or {}
    deployed = _deployed(cluster)
    rows = [
        _row(name, entry, deployed)
        for name, entry in sorted(catalog.items())
        if _wanted(name, entry, args.size, args.type)
    ]
    if output.emit(rows, args.output):
        return Exit.OK
    if not rows:
        print(
            "the catalog has none such: `kubectl slm models` lists all" if catalog else "the catalog is empty"
        )
        return Exit.OK
    headers = ("NAME", "PARAMETERS", "FORMAT", "SIZE", "LICENSE", "DEPLOYED AS")
    shown = [
        [
            each["name"],
            each["parameters"] or "",
            each["quantization"] or "",
            output.size(each["sizeBytes"]),
            each["license"] + (" (gated)" if each["gated"] else ""),
            ", ".join(each["deployments"]),
        ]
        for each in rows
    ]
    print(output.table(headers, shown))
    return Exit.OK


def _deployed(cluster: Cluster) -> list[read.Document]:
    """As far as this user may see."""
    for everywhere in (True, False):
        try:
            return cluster.deployments(everywhere=everywhere)
        except CommandError as error:
            if error.code is not Exit.FORBIDDEN:
                raise
    return []


def _row(name: str, entry: Entry, deployed: list[read.Document]) -> dict[str, Any]:
    sources = {
        f"catalog://{name}",
        entry["source"],
        *(each["source"] for each in entry.get("variants") or ()),
    }
    using = [each for each in deployed if each["spec"]["model"].get("source") in sources]
    return {
        "name": name,
        "source": entry["source"],
        "parameters": entry.get("parameters"),
        "quantization": entry.get("quantization"),
        "sizeBytes": entry.get("sizeBytes"),
        "license": entry["license"],
        "gated": bool(entry.get("gated")),
        "deployments": [f"{read.namespace_of(each)}/{read.name_of(each)}" for each in using],
    }


def _wanted(name: str, entry: Entry, size: str | None, word: str | None) -> bool:
    told = f"{name} {entry['source']}".lower()
    if word is not None and not re.search(_spelt(word.lower()), told):
        return False
    return size is None or _size_of(entry) == size


def _spelt(word: str) -> str:
    """Makers write `instruct` as `it` too, and `chat`."""
    return r"instruct|[-_]it\b|chat" if word in {"instruct", "chat"} else re.escape(word)


def _size_of(entry: Entry) -> str | None:
    """None where the catalog tells neither parameters nor bytes; a parameter takes some 0.6 bytes in four bits."""
    match = re.fullmatch(r"([0-9.]+)([MBT])", entry.get("parameters") or "")
    if match is not None:
        count = float(match[1]) * _UNITS[match[2]]
    elif entry.get("sizeBytes"):
        count = entry["sizeBytes"] / 0.6
    else:
        return None
    return next(size for size, limit in _LIMITS.items() if count < limit)
