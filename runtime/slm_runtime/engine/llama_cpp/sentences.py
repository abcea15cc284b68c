"""Cuts a long text for a SentencePiece vocabulary, where no token can lie across.

llama.cpp makes room for a symbol that is no token anew each time: the time is the square of the number of such symbols, and
100,000 emojis would hold the tokenizer for a minute.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from string import whitespace
from typing import Final

_SPACE: Final = "\u2581"
"""How these vocabularies write a blank."""
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
        joined = (text for text in (*tokens, *self._marks) if len(text) > 1)
        self._joined = frozenset(" ".join(joined))
        """Characters of tokens and marks that have more than one, and the blank: before any other a text can be cut."""

    def read(self, text: str, tokenize: Tokenize) -> list[int]:
        """The text's tokens, which llama.cpp's own way to read it, `tokenize`, gives for its pieces."""
        # Before whatever it reads, llama.cpp puts a blank, for most of these vocabularies.
        prefixed = self._tokens[tokenize("a")[0]].startswith(_SPACE)
        found: list[int] = []
        for piece in self.pieces(text):
            read = tokenize(piece)
            found += read[1:] if found and prefixed else read
        return found

    def pieces(self, text: str) -> Iterator[str]:
        """Each but the first can be read with a blank before it, which is a token by itself."""
        start = 0
        while len(text) - start > SHORT:
            places = range(start + SHORT, len(text))
            apart = (place for place in places if text[place] not in self._joined)
            end = next((place for place in apart if not self._beside_mark(text, start, place)), None)
            if end is None:
                break
            yield text[start:end]
            start = end
        yield text[start:]

    def _beside_mark(self, text: str, start: int, place: int) -> bool:
        """Some marks take the blanks beside them along."""
        before = text[start:place].rstrip(whitespace)
        after = text[place : place + SHORT].lstrip(whitespace)
        return before.endswith(self._marks) or after.startswith(self._marks)
