"""From a template's text to its tree."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

from slm_contract.gotemplate.errors import TemplateRefused
from slm_contract.gotemplate.lexer import Piece, Word, pieces
from slm_contract.gotemplate.nodes import (
    Action,
    Body,
    Call,
    Constant,
    Dot,
    Expression,
    Field,
    If,
    Leave,
    Node,
    Pipe,
    Range,
    Text,
    Variable,
    With,
)

DEPTH: Final = 64
"""How deep blocks, values and pipes may be nested."""
_BLOCKS: Final[Mapping[str, type[If | With | Range]]] = {"if": If, "with": With, "range": Range}
_OTHERS: Final = frozenset({"define", "template", "block"})
_NAMED: Final = {"true": True, "false": False, "nil": None}


def parse(template: str) -> Body:
    """Read a template.

    Raises
    ------
    TemplateRefused
        It is none, or is made of several.
    """
    return _Parser(pieces(template)).whole()


class _Parser:
    def __init__(self, given: Iterator[Piece]) -> None:
        self._pieces = given
        self._line = 1
        self._depth = 0
        self._loops = 0

    def whole(self) -> Body:
        body, closing = self._body()
        if closing is not None:
            self._refuse(f"{closing[0].text!r} belongs to no block")
        return body

    def _body(self) -> tuple[Body, tuple[Word, ...] | None]:
        """Up to the `else` or `end` that closes it; None: up to the template's end."""
        nodes: list[Node] = []
        for piece in self._pieces:
            self._line = piece.line
            if piece.text:
                nodes.append(Text(piece.text))
            if piece.words is None:
                continue
            if not piece.words:
                self._refuse("an action is empty")
            first = piece.words[0].text
            if first in {"else", "end"}:
                return tuple(nodes), piece.words
            nodes.append(self._node(first, piece.words))
        return tuple(nodes), None

    def _node(self, first: str, words: tuple[Word, ...]) -> Node:
        if first in _BLOCKS:
            return self._block(first, words[1:])
        if first in _OTHERS:
            self._refuse(f"{first!r}: a template of several has no counterpart")
        if first in {"break", "continue"} and len(words) == 1:
            if not self._loops:
                self._refuse(f"{first!r} stands outside of a range")
            return Leave(first)
        return Action(self._pipe(words))

    def _block(self, word: str, words: tuple[Word, ...]) -> Node:
        line = self._line
        pipe = self._pipe(words, names=2 if word == "range" else 1)
        self._deeper()
        self._loops += word == "range"
        then, closing = self._body()
        self._loops -= word == "range"
        otherwise: Body = ()
        if closing is not None and closing[0].text == "else":
            if len(closing) == 1:
                otherwise, closing = self._body()
            elif closing[1].text in {"if", "with"} and word != "range":
                # It shares the outer block's `end`.
                otherwise, closing = (self._block(closing[1].text, closing[2:]),), ()
            else:
                self._refuse(f"'else {closing[1].text}' is not understood in {word!r}")
        if closing is None:
            self._line = line
            self._refuse(f"{word!r} has no 'end'")
        if closing and closing[0].text != "end":
            self._refuse(f"{word!r} has two 'else'")
        self._depth -= 1
        return _BLOCKS[word](pipe, then, otherwise)

    def _pipe(self, words: tuple[Word, ...], names: int = 1) -> Pipe:
        variables: tuple[str, ...] = ()
        declares = False
        for count in range(1, names + 1):
            given = words[: 2 * count]
            marks = [word.kind for word in given[1::2]]
            if (
                len(given) == 2 * count
                and marks[-1] in {"declare", "assign"}
                and marks[:-1] == ["comma"] * (count - 1)
            ):
                variables = tuple(self._name(word) for word in given[::2])
                declares, words = marks[-1] == "declare", words[2 * count :]
                break
        reader = _Words(words, self._line, self._depth)
        return Pipe(self._line, reader.pipeline(whole=True), variables, declares)

    def _name(self, word: Word) -> str:
        if word.kind != "variable" or word.text == "$":
            self._refuse(f"{word.text!r} is no variable")
        return word.text[1:]

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            self._refuse("blocks are nested too deeply")

    def _refuse(self, why: str) -> NoReturn:
        raise TemplateRefused(self._line, why)


class _Words:
    """The value of an action."""

    def __init__(self, words: tuple[Word, ...], line: int, depth: int) -> None:
        self._words = list(words)[::-1]
        self._line = line
        self._depth = depth

    def pipeline(self, *, whole: bool) -> Expression:
        value = self._command(None)
        stages = 0
        while self._next_is("pipe"):
            stages = self._one_more(stages)
            self._words.pop()
            value = self._command(value)
        if self._words and (whole or not self._next_is("close")):
            self._refuse(f"{self._words[-1].text!r} is not understood here")
        return value

    def _command(self, piped: Expression | None) -> Expression:
        if not self._words:
            self._refuse("a value is missing")
        if self._next_is("word") and self._words[-1].text not in _NAMED:
            function, arguments = self._words.pop().text, []
            while self._words and not self._next_is("pipe") and not self._next_is("close"):
                arguments.append(self._operand())
            return Call(function, (*arguments, *(() if piped is None else (piped,))))
        value = self._operand()
        if piped is not None:
            self._refuse("what a value is piped into has to be a function")
        return value

    def _operand(self) -> Expression:
        word = self._words.pop()
        value: Expression
        match word.kind:
            case "text":
                value = Constant(self._string(word.text))
            case "number":
                value = Constant(self._number(word.text))
            case "variable":
                value = Variable(word.text[1:])
            case "field":
                value = Field(Dot(), word.text[1:])
            case "dot":
                value = Dot()
            case "open":
                value = self._inside()
            case "word" if word.text in _NAMED:
                value = Constant(_NAMED[word.text])
            case "word":
                value = Call(word.text, ())
            case _:
                self._refuse(f"{word.text!r} is not understood here")
        steps = 0
        while self._next_is("field") and not self._words[-1].apart:
            steps = self._one_more(steps)
            value = Field(value, self._words.pop().text[1:])
        return value

    def _inside(self) -> Expression:
        self._depth = self._one_more(self._depth)
        value = self.pipeline(whole=False)
        if not self._words:
            self._refuse("a ( has no )")
        self._words.pop()
        self._depth -= 1
        return value

    def _string(self, quoted: str) -> str:
        if quoted.startswith("`"):
            return quoted[1:-1].replace("\r", "")
        try:
            return str(ast.literal_eval(quoted))
        except (ValueError, SyntaxError):
            self._refuse(f"{quoted[:40]} is no string")

    def _number(self, text: str) -> int | float:
        try:
            if re.fullmatch(r"[+-]?[0-9_]+", text) and not re.match(r"[+-]?0.", text):
                return int(text)
            return int(text, 16) if "x" in text.lower() else float(text)
        except ValueError:
            self._refuse(f"{text[:40]!r} is no number")

    def _one_more(self, count: int) -> int:
        if count >= DEPTH:
            self._refuse("a value is made of too many others")
        return count + 1

    def _next_is(self, kind: str) -> bool:
        return bool(self._words) and self._words[-1].kind == kind

    def _refuse(self, why: str) -> NoReturn:
        raise TemplateRefused(self._line, why)
