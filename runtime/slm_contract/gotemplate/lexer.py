"""Text and actions of a template, and the words of an action, as Go's lexer divides them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from slm_contract.gotemplate.errors import TemplateRefused

Kind = Literal[
    "text",
    "number",
    "declare",
    "assign",
    "pipe",
    "open",
    "close",
    "comma",
    "variable",
    "field",
    "dot",
    "word",
]

_WORDS: Final = re.compile(
    r"""
    (?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`)
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?))
  | (?P<declare>:=)
  | (?P<assign>=)
  | (?P<pipe>\|)
  | (?P<open>\()
  | (?P<close>\))
  | (?P<comma>,)
  | (?P<variable>\$\w*)
  | (?P<field>\.\w+)
  | (?P<dot>\.)
  | (?P<word>\w+)
    """,
    re.VERBOSE,
)
_SPACE: Final = " \t\r\n"
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Word:
    kind: Kind
    text: str
    apart: bool
    """Whether there is space before it: `$a .B` are two values, `$a.B` is one."""


@dataclass(frozen=True)
class Piece:
    """Some text, and the action after it."""

    text: str
    line: int
    """Where the action begins."""
    words: tuple[Word, ...] | None
    """None: a comment, or the template's end."""


def pieces(template: str) -> Iterator[Piece]:
    """Divide a template; the trim markers `{{-` and `-}}` have had their effect.

    Raises
    ------
    TemplateRefused
        An action isn't closed, or holds what is no word of the language.
    """
    position, trimmed = 0, False
    while True:
        opening = template.find("{{", position)
        text = template[position:] if opening < 0 else template[position:opening]
        if trimmed:
            text = text.lstrip(_SPACE)
        if opening < 0:
            yield Piece(text, _line(template, len(template)), None)
            return
        start = opening + 2
        if template[start : start + 1] == "-" and template[start + 1 : start + 2] in {*_SPACE}:
            text, start = text.rstrip(_SPACE), start + 1
        words, position, trimmed = _action(template, start, _line(template, opening))
        yield Piece(text, _line(template, opening), words)


def _line(template: str, position: int) -> int:
    return template.count("\n", 0, position) + 1


def _action(template: str, start: int, line: int) -> tuple[tuple[Word, ...] | None, int, bool]:
    """Its words, where it ends, and whether it takes away the space behind it."""
    position = _after_space(template, start)
    comment = _COMMENT.match(template, position)
    if comment:
        end, trims = _end(template, comment.end(), line) or _refuse(
            line, "a comment has to be all of its action"
        )
        return None, end, trims
    words: list[Word] = []
    while True:
        ending = _end(template, position, line)
        if ending is not None:
            return tuple(words), *ending
        after = _after_space(template, position)
        word = _WORDS.match(template, after)
        if word is None:
            _refuse(line, f"{template[after : after + 20]!r} is not understood")
        words.append(Word(word.lastgroup, word[0], after > position))  # type: ignore[arg-type]
        position = word.end()


def _after_space(template: str, position: int) -> int:
    blank = _BLANK.match(template, position)
    return position if blank is None else blank.end()


def _end(template: str, position: int, line: int) -> tuple[int, bool] | None:
    """Where the text goes on behind the action that ends here, and whether without its leading space."""
    after = _after_space(template, position)
    if template.startswith("}}", after):
        return after + 2, False
    if after > position and template.startswith("-}}", after):
        return after + 3, True
    if after == len(template):
        _refuse(line, "a {{ has no }}")
    return None


def _refuse(line: int, why: str) -> NoReturn:
    raise TemplateRefused(line, why)
