"""Cuts what llama.cpp's pre-tokenizer can't read in one piece.

Most byte pair vocabularies have their words found by `std::regex`, which goes one call deeper for each character of a match:
some 320 bytes of stack each, without a bound. A run of 30,000 blanks, or `A`, ended the process. And two pre-tokenizers
have an end of their own: blanks side by side, a long number.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final

from slm_runtime.engine.protocol import TOKENIZING_STACK_BYTES

MOST: Final = TOKENIZING_STACK_BYTES // 1024
"""Characters of a piece: more than llama.cpp by itself can match on the usual stack of 8 MiB."""

ITERATIVE: Final = frozenset(
    """
    a.x-4.0 chameleon chatglm-bpe codeshell command-r dbrx deepseek-r1-qwen exaone exaone4 f2llmv2 falcon-h1 falcon3
    gemma4 gigachat glm4 glm5 gpt-2 granite-docling granite-embed-multi-311m grok-2 hunyuan jais jina-de jina-es
    jina-v1-en jina-v2-code jina-v2-de jina-v2-es jina-v5-nano kimi-k2 kormo laguna lfm2 llama-bpe llama-v3 llama3
    megrez mellum mellum2 midm-2.0 minerva-7b modern-bert mpt olmo phi-2 pixtral qwen2 qwen35 refact roberta-bpe
    sarvam-moe smaug-bpe smollm solar-open stablelm2 starcoder trillion
    """.split()
)
"""Pre-tokenizers that llama.cpp has a loop for: they read any length, and nothing is cut for them."""

_LETTER: Final = "[A-Za-zÀ-ÖØ-öø-ÿΑ-ΡΣ-Ωα-ωА-Яа-яぁ-ゖァ-ヺ一-龥가-힣]"
_LINE: Final = re.compile(rf"(?<={_LETTER}\n)(?={_LETTER})")
_WORD: Final = re.compile(rf"(?<={_LETTER})(?= {_LETTER})")
_CLAUSE: Final = re.compile(rf"(?<={_LETTER})(?=[,.!?\u3002\uff0c\u3001])")
_NUMBER: Final = re.compile(r"(?<=[A-Za-z])(?=[0-9])")

_ALL: Final = (_LINE, _WORD, _CLAUSE, _NUMBER)
_BORDERS: Final = {
    "exaone-moe": (_LINE, _CLAUSE, _NUMBER),
    "superbpe": (_NUMBER,),
    "whitespace": (_LINE, _WORD),
    **dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), (_LINE, _WORD, _CLAUSE)),
}
"""Where the pre-tokenizer ends a word whatever stands around; all others do at all four."""
_TRIES: Final = 8

_BLANKS: Final = re.compile(r"(?<= )(?=\s)|(?<=\s)(?= )")
"""`whitespace` reads what is between words as a word, and llama.cpp aborts where one has a blank beside something else."""
_GROUP: Final = 99
_NUMBERS: Final = re.compile(rf"[0-9]{{{2 * _GROUP},}}")
"""`superbpe` groups a number's digits by three from its end, in a time that is the square of their count."""


class Bounds:
    """For one byte pair vocabulary."""

    def __init__(self, pre: str | None, marks: Collection[str]) -> None:
        """Prepare.

        Parameters
        ----------
        pre
            What the file calls its pre-tokenizer.
        marks
            All texts that are taken out of a text before the rest is read: nothing is cut beside them or inside.
        """
        self._pre = pre
        self._recursive = pre not in ITERATIVE
        self._borders = _BORDERS.get(pre or "", _ALL)
        self._marks = [mark for mark in marks if mark]
        self._reach = max(map(len, self._marks), default=0)

    def pieces(self, text: str) -> Iterator[str]:
        """The tokens of the text are those of its pieces, unless one word alone is longer than a piece can be."""
        start = 0
        for end in self._needed(text):
            yield from self._bounded(text[start:end])
            start = end
        yield from self._bounded(text[start:])

    def _needed(self, text: str) -> Iterator[int]:
        """Where it is cut whatever its length: no token lies across."""
        if self._pre == "whitespace":
            yield from (found.start() for found in _BLANKS.finditer(text))
        elif self._pre == "superbpe":
            for number in _NUMBERS.finditer(text):
                first, end = number.span()
                yield from range(end - (end - first - 1) // _GROUP * _GROUP, end, _GROUP)

    def _bounded(self, text: str) -> Iterator[str]:
        start = 0
        while self._recursive and len(text) - start > MOST:
            first, last = start + MOST // 2, start + MOST
            end = next(self.borders(text, first, last), None) or self._anywhere(text, first, last)
            yield text[start:end]
            start = end
        yield text[start:]

    def borders(self, text: str, first: int, last: int) -> Iterator[int]:
        """Places where a word ends for certain: some of the last ones of each kind."""
        for border in self._borders:
            places = [found.start() for found in border.finditer(text, first, last)]
            yield from (place for place in reversed(places[-_TRIES:]) if self._free(text, place))

    def _anywhere(self, text: str, first: int, last: int) -> int:
        """Inside a word, but in no mark."""
        places = range(last, max(first, last - self._reach - 1), -1)
        return next((place for place in places if self._free(text, place)), last)

    def _free(self, text: str, place: int) -> bool:
        """Whether no mark ends, begins or lies across there."""
        first = max(0, place - self._reach)
        near = text[first : place + self._reach]
        for mark in self._marks:
            found = near.find(mark)
            while found >= 0:
                if found <= place - first <= found + len(mark):
                    return False
                found = near.find(mark, found + 1)
        return True
