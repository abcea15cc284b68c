"""The spec's numbers and their bounds, for what other programs' files say; the CRD's schema has the same."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PARAMETERS: Final = "model.prompt.parameters"


@dataclass(frozen=True)
class Bounds:
    low: float
    high: float
    whole: bool = True
    never: float | None = None
    """A value between them that means nothing."""


BOUNDS: Final[Mapping[str, Bounds]] = {
    "runtime.contextLength": Bounds(128, 1048576),
    "runtime.parallel": Bounds(1, 256),
    "runtime.batchSize": Bounds(32, 8192),
    "runtime.threads": Bounds(1, 512),
    "runtime.gpuLayers": Bounds(-1, 1000, never=0),
    "replicas": Bounds(0, 1000),
    "endpoint.port": Bounds(1, 65535),
    f"{PARAMETERS}.temperature": Bounds(0, 2, whole=False),
    f"{PARAMETERS}.topK": Bounds(0, 1000000),
    f"{PARAMETERS}.topP": Bounds(0, 1, whole=False),
    f"{PARAMETERS}.minP": Bounds(0, 1, whole=False),
    f"{PARAMETERS}.typicalP": Bounds(0.01, 1, whole=False),
    f"{PARAMETERS}.repeatPenalty": Bounds(0.1, 10, whole=False),
    f"{PARAMETERS}.repeatLastN": Bounds(-1, 1048576),
    f"{PARAMETERS}.frequencyPenalty": Bounds(-2, 2, whole=False),
    f"{PARAMETERS}.presencePenalty": Bounds(-2, 2, whole=False),
    f"{PARAMETERS}.seed": Bounds(0, 2147483647),
    f"{PARAMETERS}.maxTokens": Bounds(1, 1048576),
}
"""By the field's path below `spec`."""
QUANTIZATIONS: Final = tuple(
    "F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K_L Q3_K_M".split()
)
"""What `model.quantization` takes, beside `Auto`."""


def number(path: str, said: object) -> int | float:
    """Read a field's value.

    Raises
    ------
    ValueError
        A sentence for whoever wrote it.
    """
    bounds = BOUNDS[path]
    try:
        value = (
            float(said) if isinstance(said, (int, float, str)) and not isinstance(said, bool) else math.nan
        )
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or (bounds.whole and value != int(value)):
        raise ValueError(
            f"{str(said)[:40]!r} is no {'whole ' if bounds.whole else ''}number; it was left out"
        )
    if not bounds.low <= value <= bounds.high:
        raise ValueError(f"spec.{path} takes {bounds.low:g} to {bounds.high:.7g}; it was left out")
    if value == bounds.never:
        raise ValueError(f"spec.{path} takes no {value:g}; it was left out")
    return int(value) if bounds.whole else value
