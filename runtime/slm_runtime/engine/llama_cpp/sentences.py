"""Cuts a long text for a SentencePiece vocabulary, where no token can lie across.

llama.cpp makes room for a symbol that is no token anew each time: the time is the square of the number of such symbols, and
100,000 emojis would hold the tokenizer for a minute.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from string import whitespace
from typing import Final

_SPACE: Final = "\u2581"
"""How these vocabularies write a blank."""
_BLANKS: Final = f"{_SPACE}{whitespace}"
SHORT: Final = 4096
"""Characters of a piece, but for the last; what is no longer needn't come here."""

Tokenize = Callable[[str], list[int]]


class Sentences:
    """For one vocabulary."""

    def __init__(self, tokens: Sequence[str], marks: Collection[str]) -> None:
        """Prepare.

        Parameters
        ----------
        tokens
            The texts of all tokens, as the vocabulary writes them.
        marks
            All texts that are taken out of a text before the rest is read: nothing is cut beside them or inside.
        """
        self._tokens = tokens
        self._marks = tuple(mark for mark in marks if mark)
        self._joined = {
            pair for text in (*tokens, *self._marks) for pair in pairwise(text.replace(" ", _SPACE))
        }
        """Characters that stand side by side in some token or mark: between any others a text can be cut."""

    def read(self, text: str, tokenize: Tokenize) -> list[int]:
        """The text's tokens, which llama.cpp's own way to read it, `tokenize`, gives for its pieces."""
        # Before whatever it reads, llama.cpp puts a blank, for most of these vocabularies.
        prefixed = self._tokens[tokenize("a")[0]].startswith(_SPACE)
        found: list[int] = []
        for piece in self.pieces(text, prefixed=prefixed):
            read = tokenize(piece)
            found += read[1:] if found and prefixed else read
        return found

    def pieces(self, text: str, *, prefixed: bool) -> Iterator[str]:
        """Each but the first can be read with a blank before it, which is a token by itself."""
        escaped = text.replace(" ", _SPACE)
        start = 0
        while len(text) - start > SHORT:
            places = range(start + SHORT, len(text))
            apart = (place for place in places if self._apart(escaped, place, prefixed=prefixed))
            end = next((place for place in apart if not self._beside_mark(escaped, start, place)), None)
            if end is None:
                break
            yield text[start:end]
            start = end
        yield text[start:]

    def _apart(self, text: str, place: int, *, prefixed: bool) -> bool:
        left, right = text[place - 1], text[place]
        return (left, right) not in self._joined and not (prefixed and (_SPACE, right) in self._joined)

    def _beside_mark(self, text: str, start: int, place: int) -> bool:
        """Some marks take the blanks beside them along."""
        before = text[start:place].rstrip(_BLANKS)
        after = text[place : place + SHORT].lstrip(_BLANKS)
        return before.endswith(self._marks) or after.startswith(self._marks)
