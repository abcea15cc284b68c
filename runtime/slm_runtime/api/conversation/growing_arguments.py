"""A call's arguments as JSON, while they are read in whichever notation."""

import json
from typing import Any, Final

import msgspec

from slm_runtime.api.conversation.tool_readers import Schema, as_declared_value, may_be_text

_KEY: Final = ("{", ",")


class Arguments:
    """Is told what the model writes, and writes JSON.

    A value that was written as text where the tool's schema wants something else is held until it is whole, and
    becomes that.
    """

    def __init__(self, schema: Schema) -> None:
        properties = schema.get("properties")
        self._properties: dict[str, Any] = properties if isinstance(properties, dict) else {}
        self._all: list[str] = []
        self._told = 0
        """Pieces that were told."""
        self._depth = 0
        self._key = ""
        self._is_key = False
        """The next text is an argument's name."""
        self._text: list[str] | None = None
        """What came of a text that is needed whole, in JSON's escapes."""

    @property
    def text(self) -> str:
        return "".join(self._all)

    @property
    def depth(self) -> int:
        return self._depth

    def fresh(self) -> str:
        """What was written since this was asked last."""
        fresh = "".join(self._all[self._told :])
        self._told = len(self._all)
        return fresh

    def sign(self, sign: str) -> None:
        """One of `{}[],:`."""
        if sign in "{[":
            self._depth += 1
        elif sign in "}]":
            self._depth -= 1
        if self._depth == 1 and sign in "{,:":
            self._is_key = sign in _KEY
        self._all.append(sign)

    def raw(self, text: str) -> None:
        """Blanks, numbers, and names of JSON's."""
        self._all.append(text)

    def begin_text(self) -> None:
        declared = self._properties.get(self._key)
        whole = self._depth == 1 and (self._is_key or not may_be_text(declared))
        self._text = [] if whole else None
        if not whole:
            self._all.append('"')

    def more_text(self, escaped: str) -> None:
        """More of a text, as it stands between JSON's quotes."""
        (self._all if self._text is None else self._text).append(escaped)

    def end_text(self) -> None:
        if self._text is None:
            self._all.append('"')
            return
        quoted, self._text = f'"{"".join(self._text)}"', None
        self._all.append(self._key_of(quoted) if self._is_key else self._value_of(quoted))

    def text_whole(self, text: str) -> None:
        self.begin_text()
        self.more_text(escaped(text))
        self.end_text()

    def argument(self, name: str) -> None:
        """The name of the next one, for notations that have no signs between them."""
        self.sign("," if self._depth else "{")
        self.text_whole(name)
        self.sign(":")

    def close(self) -> None:
        """The end, for such notations."""
        if not self._depth:
            self.sign("{")
        self.sign("}")

    def _key_of(self, quoted: str) -> str:
        self._key = _decoded(quoted)
        return quoted

    def _value_of(self, quoted: str) -> str:
        value = _decoded(quoted)
        declared = as_declared_value(value, self._properties.get(self._key))
        return quoted if declared is value else msgspec.json.encode(declared).decode()


def escaped(text: str) -> str:
    """As it stands between JSON's quotes."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _decoded(quoted: str) -> str:
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:
        return ""
