"""What pods measure, as Prometheus reads it → figures for people. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from slm_contract import metrics

_COUNTED: Final[Mapping[str, str]] = {
    f"{metrics.GENERATED_TOKENS}_total": "generated",
    f"{metrics.PROMPT_TOKENS}_total": "prompted",
    f"{metrics.PREFIX_TOKENS}_total": "spared",
    metrics.RUNNING: "running",
    metrics.WAITING: "waiting",
    metrics.KV_CELLS_USED: "cells_used",
    metrics.KV_CELLS: "cells",
    metrics.MODEL_LOADED: "loaded",
}


@dataclass(frozen=True)
class Figures:
    """Of one pod, or the sum over several."""

    generated: float = 0
    """Tokens since its start."""
    prompted: float = 0
    spared: float = 0
    """Prompt tokens that the prefix cache has spared."""
    running: float = 0
    waiting: float = 0
    cells_used: float = 0
    cells: float = 0
    loaded: float = 0
    """Pods that have the model in memory."""

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def figures(text: str) -> Figures:
    """Of a pod's `/metrics`; what it doesn't tell is 0."""
    found = dict.fromkeys(_COUNTED.values(), 0.0)
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in _COUNTED:
            found[_COUNTED[name]] += float(line.rpartition(" ")[2])
    return Figures(**found)
