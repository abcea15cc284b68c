"""All cases, by name: the one suite."""

from collections.abc import Iterator, Mapping
from inspect import iscoroutinefunction
from typing import Final

from tests.double import ownership, rules
from tests.double.stage import Case


def _cases() -> Iterator[tuple[str, Case]]:
    for module in (ownership, rules):
        for name, case in vars(module).items():
            if iscoroutinefunction(case) and case.__module__ == module.__name__ and not name.startswith("_"):
                yield name, case


CASES: Final[Mapping[str, Case]] = dict(_cases())
