"""Long lists of numbers as their runs, `3x8,0`: a report must stay short."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

LIST_LENGTH: Final = 130
"""Numbers that are still written one by one: what readers of any version understand, and the largest models have 126."""
MAX_LENGTH: Final = 4096
_RUN: Final = re.compile(r"(?:(?P<times>[0-9]{1,4})x)?(?P<number>[0-9]{1,10})")


def to_runs(numbers: Sequence[int]) -> list[int] | str:
    """The list where it is short, else each run as `times x number`."""
    if len(numbers) <= LIST_LENGTH:
        return list(numbers)
    runs = ((number, sum(1 for _ in run)) for number, run in groupby(numbers))
    return ",".join(f"{times}x{number}" if times > 1 else str(number) for number, times in runs)


def from_runs(value: Any) -> Any:
    """The numbers of a text of runs; anything else as it is."""
    if not isinstance(value, str):
        return value
    numbers: list[int] = []
    for part in value.split(","):
        run = _RUN.fullmatch(part)
        times = 0 if run is None else int(run["times"] or 1)
        if run is None or len(numbers) + times > MAX_LENGTH:
            raise ValueError("write runs of numbers, `3x8,0`")
        numbers += [int(run["number"])] * times
    return numbers
