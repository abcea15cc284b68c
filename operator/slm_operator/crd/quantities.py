"""Kubernetes' quantities and durations as numbers, and numbers as what people read."""

import re
from decimal import Decimal, InvalidOperation
from typing import Final

_FACTORS: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{
        suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)
    },
    **{
        f"{suffix}i": Decimal(1024) ** power
        for power, suffix in enumerate(("K", "M", "G", "T", "P", "E"), start=1)
    },
}
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(n|u|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|[eE][+-]?[0-9]+)?")
_DURATION: Final = re.compile(r"([0-9]+)(h|m|s)")
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}

MIB: Final = 1 << 20
GIB: Final = 1 << 30
FOREVER: Final = (1 << 31) - 1
"""Seconds: the most that Kubernetes' own fields take, and no sum with it overflows."""


def parse_quantity(text: str | float) -> Decimal:
    """`250m`, `1Gi`, `2e3` or a number, in the base unit (cores, bytes, pieces).

    Raises
    ------
    ValueError
        Where it is no quantity.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no Kubernetes quantity")
    number, suffix = match.group(1), match.group(2) or ""
    try:
        if suffix not in _FACTORS:
            return Decimal(number + suffix)
        return Decimal(number) * _FACTORS[suffix]
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is no Kubernetes quantity") from error


def parse_duration(text: str) -> float:
    """`1h30m` in seconds, up to :data:`FOREVER`; the schema has seen to it that it is one."""
    return float(min(FOREVER, sum(int(count) * _SECONDS[unit] for count, unit in _DURATION.findall(text))))


def memory_quantity(count: int) -> str:
    """Bytes as a quantity in whole MiB, rounded up: what the API server keeps as it is written."""
    mib = -(-count // MIB)
    return f"{mib // 1024}Gi" if mib % 1024 == 0 and mib else f"{mib}Mi"


def human_bytes(count: int) -> str:
    """`412 MiB`, `3.8 GiB`: three digits at most before and one after the point."""
    if count < 1000 * MIB:
        return f"{-(-count // MIB)} MiB"
    return f"{count / GIB:.1f} GiB"


def human_seconds(seconds: float) -> str:
    """`45s`, `5m`, `1h30m`."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if count]
    return "".join(parts) or "0s"
