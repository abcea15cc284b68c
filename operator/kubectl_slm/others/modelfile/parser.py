"""Reads Modelfiles as Ollama does, and remembers where each instruction began."""

import codecs
from dataclasses import dataclass
from typing import Final

from kubectl_slm.others.converted import NotConverted

LIMIT: Final = 1 << 20
"""Characters that a Modelfile may have."""

INSTRUCTIONS: Final = (
    "from",
    "parameter",
    "template",
    "system",
    "adapter",
    "message",
    "license",
    "requires",
    "renderer",
    "parser",
    "file",
)
"""Ollama's, and `FILE`, which people write though Ollama refuses it."""
ROLES: Final = ("system", "user", "assistant")
_SPACE: Final = " \t"
_NEWLINE: Final = "\r\n"
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Command:
    line: int
    """Where its value begins, from 1 on."""
    name: str
    """The instruction, in small letters."""
    value: str
    key: str = ""
    """Of a `PARAMETER` its name, of a `MESSAGE` its role."""


def decode(data: bytes) -> str:
    """The text of a file: UTF-8, or what its byte order mark says."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors="replace")


def parse(text: str) -> tuple[Command, ...]:
    """All instructions, in their order.

    Raises
    ------
    NotConverted
        Ollama couldn't read it either; `FILE` is let pass.
    """
    if len(text) > LIMIT:
        raise NotConverted(
            None, f"it is longer than {LIMIT:,} characters", "Keep what the model has to know elsewhere."
        )
    return _Reader(text).commands()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def commands(self) -> tuple[Command, ...]:
        found: list[Command] = []
        while self._to_instruction():
            line, word = self._line(), self._word()
            name = word.lower()
            if name not in INSTRUCTIONS:
                known = ", ".join(INSTRUCTIONS).upper()
                raise NotConverted(
                    line,
                    f"{(word or self._text[self._at])[:40]!r} is no instruction",
                    f"Write one of {known}.",
                )
            key = self._key(line, name) if name in {"parameter", "message"} else ""
            if not self._next_is_space():
                raise NotConverted(
                    line, f"{word} has no value", "Write it behind the instruction, on the same line."
                )
            found.append(Command(line, name, self._value(line, word), key))
        if not any(each.name == "from" for each in found):
            raise NotConverted(
                None, "there is no FROM", "Write FROM and the name of a model: FROM qwen2.5:3b"
            )
        return tuple(found)

    def _to_instruction(self) -> bool:
        """Past blank lines and comments; False at the end."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "#":
                while self._at < len(self._text) and self._text[self._at] not in _NEWLINE:
                    self._at += 1
            elif character not in _SPACE + _NEWLINE:
                return True
            else:
                self._at += 1
        return False

    def _word(self, more: str = "") -> str:
        start = self._at
        while self._at < len(self._text) and (
            (self._text[self._at].isascii() and self._text[self._at].isalpha())
            or self._text[self._at] in more
        ):
            self._at += 1
        return self._text[start : self._at]

    def _key(self, line: int, name: str) -> str:
        while self._next_is_space():
            self._at += 1
        if name == "parameter":
            key = self._word("_0123456789")
            if not key:
                raise NotConverted(
                    line, "a PARAMETER has no name", "Write its name and its value: PARAMETER temperature 0.7"
                )
            return key
        key = self._word()
        if key not in ROLES:
            raise NotConverted(
                line, "a MESSAGE has no role", f"Write MESSAGE, one of {', '.join(ROLES)}, and the text."
            )
        return key

    def _value(self, line: int, word: str) -> str:
        """Up to the line's end, or to the one where its quotes are closed; characters that can't be seen are dropped."""
        kept: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character in _NEWLINE:
                value = _unquoted("".join(kept).strip())
                if value is not None:
                    return value
            if character in _SPACE + _NEWLINE or character.isprintable():
                kept.append(character)
        value = _unquoted("".join(kept).strip())
        if value is None:
            raise NotConverted(
                line,
                f"the quotes of {word} are never closed",
                'End it as it begins, with " or with three of them.',
            )
        return value

    def _next_is_space(self) -> bool:
        return self._at < len(self._text) and self._text[self._at] in _SPACE

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1


def _unquoted(text: str) -> str | None:
    """None: its quotes aren't closed yet."""
    for quote in ('"""', '"'):
        if text.startswith(quote):
            closed = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if closed else None
    return text
