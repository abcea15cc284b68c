"""What a sequence may go on with, guessed from what it already holds: its prompt, its text, what the client foretold.

A guess costs microseconds, and whether it comes true shows with the next token, also where nothing was made of it. So
how far guesses can be trusted is always known, and none has to be tried out at the price of a longer step.
"""

from array import array
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from slm_runtime.engine.protocol import Tokens

_GRAM: Final = 3
"""Tokens that have to have stood somewhere before, for what followed them to be expected again."""
_LONGEST_RUN: Final = 64
"""Tokens that agree with the place that is followed: more say no more of the next one."""
_SPARSE: Final = 4
"""Entries of the table for each token, at least: few are taken by others."""
_FACTORS: Final = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)
_PRIOR: Final = 4.0
"""Outcomes that the first opinion counts for: what has agreed for long goes on for about as long."""
_FIRST_OPINION: Final = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96, 0.98, 0.99)
"""Of what stands at a place that didn't agree before, agreed with 1 token, 2, 4, 8, ...; of what a grammar forces."""
_MEMORY: Final = 0.98
"""What an outcome counts for after each later one."""


class Lookup:
    """Follows a place in the text whose next tokens are expected to come again.

    Places are found by the last three tokens, in a table of a few numbers a token: a later place takes the entry of an
    earlier one, a wrong one shows in the comparison.
    """

    def __init__(self, prompt: int, foretold: Iterable[int] = ()) -> None:
        """`prompt`: tokens of the sequence that aren't its answer; what is foretold begins with that."""
        self._prompt = prompt
        self._text: Tokens = array("i", foretold)
        self._table = np.zeros(0, np.int32)
        self._indexed = 0
        self._known = 0
        """Tokens of the sequence that the text has."""
        self._place: int | None = 0 if self._text else None
        """Of the text, where what comes next is read off."""
        self.run = _LONGEST_RUN if self._text else 0
        """Tokens before the place that agree with those before the end."""

    def take(self, tokens: Tokens) -> None:
        """Learn what the sequence holds more than the last time."""
        start = max(self._known, min(self._prompt, len(tokens)))
        self._text += tokens[self._known : start]
        for token in tokens[start:]:
            self._follow(token)
            self._text.append(token)
        self._known = len(tokens)
        self._index()
        if self.run == 0:
            self._find()

    def expected(self, most: int) -> Tokens:
        """Up to a picture: none can be written."""
        if self._place is None:
            return array("i")
        tokens = self._text[self._place : self._place + most]
        return tokens[: next((place for place, token in enumerate(tokens) if token < 0), most)]

    def _follow(self, token: int) -> None:
        """Pass one token; the place goes on beside it even where it was another one, as in a text with a word changed."""
        if self._place is None:
            return
        agrees = self._place < len(self._text) and self._text[self._place] == token
        self.run = min(self.run + 1, _LONGEST_RUN) if agrees else 0
        self._place += 1

    def _find(self) -> None:
        end = len(self._text)
        if end < _GRAM:
            return
        found = int(self._table[self._slots(self._text[end - _GRAM :])[0]])
        run = 0
        while run < min(found, _LONGEST_RUN) and self._text[found - 1 - run] == self._text[end - 1 - run]:
            run += 1
        if run >= _GRAM:
            self._place, self.run = found, run

    def _index(self) -> None:
        """Enter the places up to the one before the end: the last tokens shall find earlier ones, not themselves."""
        if len(self._text) * _SPARSE > self._table.size:
            self._table = np.zeros(_SPARSE * 2 ** len(self._text).bit_length(), np.int32)
            self._indexed = 0
        last = len(self._text) - 1
        start = max(self._indexed, _GRAM)
        if last >= start:
            slots = self._slots(self._text[start - _GRAM : last])
            self._table[slots] = np.arange(start, last + 1, dtype=np.int32)
            self._indexed = last + 1

    def _slots(self, tokens: Tokens) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
        """Of each run of as many tokens as are looked for."""
        values = np.frombuffer(tokens, np.uint32)
        count = values.size - _GRAM + 1
        mixed = np.zeros(count, np.uint32)
        for offset, factor in enumerate(_FACTORS):
            mixed += values[offset : offset + count] * np.uint32(factor)
        mixed ^= mixed >> np.uint32(15)
        return mixed & np.uint32(self._table.size - 1)


class Drafter:
    """Guesses for one sequence, and how often they came true: apart by how long the place had agreed before."""

    def __init__(
        self, prompt: int, foretold: Iterable[int] = (), forced: Callable[[], list[int]] | None = None
    ) -> None:
        self._lookup = Lookup(prompt, foretold)
        self._forced = forced
        self._length = 0
        self._guess: Tokens = array("i")
        self._run: int | None = None
        """Of the guess; None: it is what a grammar forces."""
        self._tries = [_PRIOR] * len(_FIRST_OPINION)
        self._hits = [_PRIOR * share for share in _FIRST_OPINION]

    def guess(self, tokens: Tokens, most: int) -> tuple[Tokens, float]:
        """What may follow the tokens, and how likely each of it is to come true if those before it do."""
        self._observe(tokens)
        self._lookup.take(tokens)
        forced = [] if self._forced is None else self._forced()
        if forced:
            self._guess, self._run = array("i", forced[:most]), None
        else:
            self._guess, self._run = self._lookup.expected(most), self._lookup.run
        kind = self._kind(0)
        return self._guess, self._hits[kind] / self._tries[kind]

    def _observe(self, tokens: Tokens) -> None:
        """Hold the last guess against what came."""
        for place, (guessed, token) in enumerate(zip(self._guess, tokens[self._length :], strict=False)):
            kind, hit = self._kind(place), guessed == token
            self._tries[kind] = self._tries[kind] * _MEMORY + 1
            self._hits[kind] = self._hits[kind] * _MEMORY + hit
            if not hit:
                break
        self._length = len(tokens)

    def _kind(self, place: int) -> int:
        return -1 if self._run is None else min(self._run + place, _LONGEST_RUN).bit_length()
