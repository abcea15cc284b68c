"""Looks for marks in a text that comes in pieces: one may have come by half."""

import re
from collections.abc import Iterable


class Marks:
    """For one set of marks; one may begin with another."""

    def __init__(self, marks: Iterable[str]) -> None:
        self._longest_first = sorted(marks, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, self._longest_first)))
        self._firsts = frozenset(mark[0] for mark in self._longest_first)
        self._longest = max(map(len, self._longest_first), default=1)

    def first(self, text: str, *, ended: bool = False) -> tuple[int, str]:
        """Where the first mark is, and which.

        An empty one: there is none, and what comes before that place is certain to belong to none.

        Parameters
        ----------
        ended
            Nothing more comes: a mark that could still grow into a longer one is what it is.
        """
        found = self._any.search(text) if self._longest_first else None
        if found is None:
            return len(text) - self.half(text), ""
        if not ended and self._grows(text[found.start() : found.start() + self._longest]):
            return found.start(), ""
        return found.start(), found[0]

    def half(self, text: str) -> int:
        """How many characters at the end of the text may be the beginning of a mark."""
        first = max(0, len(text) - self._longest + 1)
        places = (place for place in range(first, len(text)) if text[place] in self._firsts)
        return next((len(text) - place for place in places if self._grows(text[place:])), 0)

    def _grows(self, text: str) -> bool:
        return any(len(mark) > len(text) and mark.startswith(text) for mark in self._longest_first)
