"""What drafts cost and gain: how much longer a step takes with them, as measured, and whether that pays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (1, 3, 7, 15, 31)
"""Tokens that a draft may have: with the one before it, what kernels take at a time."""
_GUESSED_SHARE: Final = 0.5
"""Of the time that a step without drafts takes a stream, what a drafted token is thought to cost: little, as long as that
was never measured, so that it will be."""
_WORTH: Final = 1.05
"""What has to be gained."""
_FRESH: Final = 64
"""Steps after which one without drafts shows anew what these are compared with."""
_FORGOTTEN: Final = 200
"""Steps in which half of what was measured is believed no more: it may have been a bad moment."""
_NEWEST: Final = 0.2
"""What the last measurement counts for. Means are compared: what rarely delays a short step often delays a long one."""


@dataclass(slots=True)
class _Cost:
    ratio: float
    step: int
    """When it was measured last."""


class Pace:
    """Steps of the same streams are compared with each other, so that neither a long context nor a busy machine counts."""

    def __init__(self) -> None:
        self._streams: tuple[int, ...] = ()
        self._plain = 0.0
        """Seconds of their step without drafts; 0: not known."""
        self._age = 0
        """Steps since then."""
        self._steps = 0
        self._costs: dict[tuple[int, int], _Cost] = {}
        """By streams and size of all drafts: how many times as long a step takes."""

    def knows(self, streams: tuple[int, ...]) -> bool:
        """Whether a step of these without drafts was measured lately."""
        return streams == self._streams and self._plain > 0 and self._age < _FRESH

    def saw(self, streams: tuple[int, ...], drafted: int, seconds: float) -> None:
        """A step was carried out, for one more token of each of the streams and so many drafted ones."""
        self._steps += 1
        if not drafted:
            known = streams == self._streams and self._plain > 0
            self._plain = _settled(self._plain, seconds) if known else seconds
            self._streams, self._age = streams, 0
            return
        if not self.knows(streams):
            return
        self._age += 1
        ratio, key = seconds / self._plain, (len(streams), _size(drafted))
        before = self._costs.get(key)
        self._costs[key] = _Cost(_settled(before.ratio, ratio) if before else ratio, self._steps)

    def cost(self, streams: int, drafted: int) -> float:
        """How many times as long as without drafts a step is thought to take."""
        size = _size(drafted)
        shares = [
            (measured.ratio - 1) / other
            for other in SIZES
            if other < size and (measured := self._costs.get((streams, other))) is not None
        ]
        guessed = 1 + max(0.0, min([_GUESSED_SHARE / streams, *shares])) * size
        measured = self._costs.get((streams, size))
        if measured is None:
            return guessed
        believed = math.exp2((measured.step - self._steps) / _FORGOTTEN)
        return guessed + (measured.ratio - guessed) * believed

    def best(self, guesses: Sequence[tuple[int, float]], room: int) -> list[int]:
        """How long a draft is best made of each guess, all zero where none pays.

        Parameters
        ----------
        guesses
            Of each stream: how many tokens there are, and how likely each of them is to come true.
        room
            Tokens that all drafts together may have.
        """
        count = len(guesses)
        likeliest = sorted(range(count), key=lambda place: guesses[place][1], reverse=True)
        best, chosen = count * _WORTH, [0] * count
        for size in SIZES:
            sizes, drafted, gained = [0] * count, 0, 0.0
            for place in likeliest:
                there, likely = guesses[place]
                taken = _fitting(min(size, there, room - drafted))
                if taken == 0:
                    continue
                sizes[place] = taken
                drafted += taken
                gained += _expected(taken, likely)
                pace = (count + gained) / self.cost(count, drafted)
                if pace > best:
                    best, chosen = pace, sizes[:]
        return chosen


def _settled(before: float, now: float) -> float:
    return before + (now - before) * _NEWEST


def _size(drafted: int) -> int:
    return next((size for size in SIZES if size >= drafted), drafted)


def _fitting(tokens: int) -> int:
    return max((size for size in SIZES if size <= tokens), default=0)


def _expected(drafted: int, likely: float) -> float:
    """How many come true, up to the first that doesn't."""
    likely = min(likely, 0.999)
    return float(likely * (1 - likely**drafted) / (1 - likely))
