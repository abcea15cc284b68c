"""The arguments of a call in each notation, read while they are written."""

import re
from typing import Final

import msgspec

from slm_runtime.api.conversation.element_readers import Elements
from slm_runtime.api.conversation.growing import Broken
from slm_runtime.api.conversation.growing_arguments import Arguments, escaped
from slm_runtime.api.conversation.marks import Marks
from slm_runtime.api.conversation.tool_readers import json_of, python_arguments

_TEXT: Final = re.compile(r'(?P<text>[^"\\\x00-\x1f]+|\\.)|(?P<control>[\x00-\x1f])|(?P<end>")', re.DOTALL)
_BETWEEN: Final = re.compile(r'(?P<sign>[{}\[\],:])|(?P<begin>")|[^"{}\[\],:]+')
_ELEMENT_CHARACTERS: Final = 512
"""More than what begins an argument has."""
_WORD_CHARACTERS: Final = 1 << 16


class JsonBody:
    """One JSON object. Small models leave line breaks in their strings as they are."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._quoted = False

    def take(self, text: str) -> tuple[int, bool]:
        place = 0
        while found := (_TEXT if self._quoted else _BETWEEN).match(text, place):
            place = found.end()
            kind = found.lastgroup
            if kind == "text":
                self._arguments.more_text(found[0])
            elif kind == "control":
                self._arguments.more_text(escaped(found[0]))
            elif kind == "sign":
                self._arguments.sign(found[0])
                if self._arguments.depth == 0:
                    return place, True
            elif kind is None:
                self._arguments.raw(found[0])
            else:
                self._quoted = not self._quoted
                (self._arguments.begin_text if self._quoted else self._arguments.end_text)()
        return place, False

    def close(self) -> bool:
        return False


class GemmaBody:
    """An object of JSON's signs, with quotes of its own, and names without any."""

    _WORD: Final = re.compile(r"[^{}\[\],:<]+")

    def __init__(self, arguments: Arguments, quote: str) -> None:
        self._arguments = arguments
        self._quote = quote
        self._end = Marks([quote])
        self._quoted = False

    def take(self, text: str) -> tuple[int, bool]:
        place = 0
        while place < len(text):
            before = place
            if self._quoted:
                place = self._take_text(text, place)
            elif text[place] in "{}[],:":
                self._arguments.sign(text[place])
                place += 1
                if self._arguments.depth == 0:
                    return place, True
            elif text[place] == "<":
                place = self._open(text, place)
            else:
                place = self._take_word(text, place)
            if place == before:
                break
        return place, False

    def close(self) -> bool:
        return False

    def _take_text(self, text: str, place: int) -> int:
        at, mark = self._end.first(text[place:])
        if at:
            self._arguments.more_text(escaped(text[place : place + at]))
        if mark:
            self._arguments.end_text()
            self._quoted = False
        return place + at + len(mark)

    def _open(self, text: str, place: int) -> int:
        if text.startswith(self._quote, place):
            self._arguments.begin_text()
            self._quoted = True
            return place + len(self._quote)
        if not self._quote.startswith(text[place:]):
            raise Broken
        return place

    def _take_word(self, text: str, place: int) -> int:
        word = self._WORD.match(text, place)
        assert word is not None  # noqa: S101
        if word.end() == len(text):
            if len(text) - place > _WORD_CHARACTERS:
                raise Broken
            return place
        value = word[0].strip()
        if value and json_of(None, value) == value:
            self._arguments.raw(value)
        elif value:
            self._arguments.text_whole(value)
        return word.end()


class ElementsBody:
    """An element for each argument."""

    def __init__(self, arguments: Arguments, elements: Elements, wrap: tuple[str, str] = ("", "")) -> None:
        """`wrap`: what a value may stand between."""
        self._arguments = arguments
        self._elements = elements
        self._before, after = wrap
        ends = ("", "\n", *((after, f"{after}\n") if after else ()))
        self._end = Marks([end + elements.argument_end for end in ends])
        self._state = "between"
        self._open = False

    def take(self, text: str) -> tuple[int, bool]:
        place = 0
        while True:
            before = place, self._state
            if self._state == "between":
                place, ended = self._take_head(text, place)
                if ended:
                    return place, True
            elif self._state == "first":
                place = self._take_wrap(text, place)
            elif self._state == "line":
                place = self._take_line(text, place)
            else:
                at, mark = self._end.first(text[place:])
                if at:
                    self._arguments.more_text(escaped(text[place : place + at]))
                place += at + len(mark)
                if mark:
                    self._arguments.end_text()
                    self._state = "between"
            if (place, self._state) == before:
                return place, False

    def close(self) -> bool:
        if self._elements.call_end or self._state != "between" or self._open:
            return False
        self._arguments.close()
        return True

    def _take_head(self, text: str, place: int) -> tuple[int, bool]:
        place = len(text) - len(text[place:].lstrip())
        self._open = place < len(text)
        end = self._elements.call_end
        if end and text.startswith(end, place):
            self._arguments.close()
            return place + len(end), True
        begun = self._elements.argument.match(text, place, place + _ELEMENT_CHARACTERS)
        if begun is None:
            if len(text) - place > _ELEMENT_CHARACTERS:
                raise Broken
            return place, False
        self._arguments.argument(begun["name"].strip())
        self._arguments.begin_text()
        self._state = "first"
        return begun.end(), False

    def _take_wrap(self, text: str, place: int) -> int:
        """What a value may stand behind and isn't its."""
        wrapped = bool(self._before) and text.startswith(self._before, place)
        if not wrapped and self._before.startswith(text[place:]) and (self._before or place == len(text)):
            return place
        self._state = "line"
        return place + len(self._before) * wrapped

    def _take_line(self, text: str, place: int) -> int:
        """The line break before a value."""
        if place == len(text):
            return place
        self._state = "value"
        return place + text.startswith("\n", place)


class PythonBody:
    """Arguments with names, their values literals; each is told when it is whole."""

    _TOKEN: Final = re.compile(r"[^'\"()\[\]{},]+|.", re.DOTALL)
    _QUOTED: Final = re.compile(r"[^\\'\"]+|\\.|['\"]", re.DOTALL)

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._read: list[str] = []
        """What there is of the next argument."""
        self._depth = 0
        self._quote = ""

    def take(self, text: str) -> tuple[int, bool]:
        place = 0
        while found := (self._QUOTED if self._quote else self._TOKEN).match(text, place):
            token = found[0]
            if token in {"'", '"'}:
                token = self._quotes(text, place)
            if not token:
                break
            place += len(token)
            if self._ends(token):
                return place, True
        return place, False

    def close(self) -> bool:
        return False

    def _quotes(self, text: str, place: int) -> str:
        """The quotes at a place; none: that depends on what follows."""
        quote = text[place]
        if self._quote:
            if quote != self._quote[0]:
                return quote
            if text.startswith(self._quote, place):
                quotes, self._quote = self._quote, ""
                return quotes
            return "" if self._quote.startswith(text[place:]) else quote
        same = len(text) - place - len(text[place : place + 3].lstrip(quote)) - max(0, len(text) - place - 3)
        if same < 3 and place + same == len(text):
            return ""
        if same != 2:
            self._quote = quote * same
        return quote * same

    def _ends(self, token: str) -> bool:
        """Take one token; returns whether it ends the arguments."""
        if not self._quote and token in {"(", "[", "{"}:
            self._depth += 1
        if not self._depth and not self._quote and token in {",", ")"}:
            self._tell("".join(self._read))
            self._read = []
            if token == ")":
                self._arguments.close()
            return token == ")"
        if not self._quote and token in {")", "]", "}"}:
            self._depth -= 1
        self._read.append(token)
        return False

    def _tell(self, text: str) -> None:
        if not text.strip():
            return
        arguments = python_arguments(text)
        if arguments is None or len(arguments) != 1:
            raise Broken
        ((name, value),) = arguments.items()
        self._arguments.argument(name)
        if isinstance(value, str):
            self._arguments.text_whole(value)
        else:
            self._arguments.raw(msgspec.json.encode(value).decode())
