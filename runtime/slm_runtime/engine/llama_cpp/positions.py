"""Where in a sequence, as the model counts, its tokens are.

To models with M-RoPE (Qwen2-VL and its kind) an image of many tokens is as far from its beginning to its end as its longer
side has patches, so what follows it is nearer than tokens count.
"""

from typing import TypeAlias

Skips: TypeAlias = list[tuple[int, int]]
"""The tokens from a sequence's beginning to a medium's end, and by how many positions these are fewer."""


class Positions:
    """Of sequences that hold images; all others' are the numbers of their tokens."""

    def __init__(self) -> None:
        self._skips: dict[int, Skips] = {}
        """By sequence."""

    def of(self, sequence: int, tokens: int) -> int:
        """The position after the sequence's first so many tokens."""
        return tokens - sum(skip for end, skip in self._skips.get(sequence, ()) if end <= tokens)

    def took(self, sequence: int, end: int, skip: int) -> None:
        """A medium that ends after so many tokens is in, and took `skip` positions fewer than tokens."""
        if skip:
            self._skips.setdefault(sequence, []).append((end, skip))

    def copied(self, source: int, target: int, tokens: int) -> None:
        if kept := self._within(source, tokens):
            self._skips[target] = kept

    def saved(self, sequence: int) -> Skips:
        return self._skips.get(sequence, []).copy()

    def restored(self, sequence: int, skips: Skips) -> None:
        """What `saved` returned is the empty sequence's now."""
        if skips:
            self._skips[sequence] = skips.copy()

    def cut(self, sequence: int, tokens: int) -> None:
        kept = self._within(sequence, tokens)
        self._skips.pop(sequence, None)
        if kept:
            self._skips[sequence] = kept

    def _within(self, sequence: int, tokens: int) -> Skips:
        return [one for one in self._skips.get(sequence, ()) if one[0] <= tokens]
