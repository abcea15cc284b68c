"""Cuts a long text where its tokens can't depend on it, ahead of marks such as `<|im_start|>`.

llama.cpp looks for marks by walking a list that grows with each one found: the time is the square of their number, and
a prompt made of nothing else would hold the tokenizer for seconds.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final

_LEAST: Final = 4096
"""Characters of a piece, but for the last."""


class Splitter:
    """For one vocabulary and one way to read it."""

    def __init__(self, marks: Collection[str], *, cuts: Collection[str]) -> None:
        """Prepare.

        Parameters
        ----------
        marks
            All texts that the tokenizer takes out of a text before it reads the rest.
        cuts
            Those of them that leave the text before them alone.
        """
        self._marks = [mark for mark in marks if mark]
        self._reach = max(map(len, self._marks), default=0)
        longest_first = sorted(filter(None, cuts), key=len, reverse=True)
        self._cuts = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def pieces(self, text: str) -> Iterator[str]:
        """The tokens of the text are those of its pieces, one after the other."""
        start = 0
        while self._cuts is not None and len(text) - start > _LEAST:
            found = self._cuts.search(text, start + _LEAST)
            while found is not None and self._disputed(text, *found.span()):
                found = self._cuts.search(text, found.start() + 1)
            if found is None:
                break
            yield text[start : found.start()]
            start = found.start()
        yield text[start:]

    def _disputed(self, text: str, begin: int, end: int) -> bool:
        """Whether another mark lies across one of the borders of the mark that was found."""
        first = max(0, begin - self._reach)
        near = text[first : end + self._reach]
        for mark in self._marks:
            place = near.find(mark)
            while place >= 0:
                left, right = first + place, first + place + len(mark)
                if left < begin < right or left < end < right:
                    return True
                place = near.find(mark, place + 1)
        return False
