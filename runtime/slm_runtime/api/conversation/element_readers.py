"""Notations of calls that look like XML: an element for the call, one for each of its arguments."""

import re
from dataclasses import dataclass
from typing import Final

from slm_runtime.api.conversation.tool_readers import Call, read_json

_BLANKS: Final = re.compile(r"\s*")


@dataclass(frozen=True)
class Elements:
    """How one family writes them; the patterns are of what begins them, and have a group `name`."""

    call: re.Pattern[str]
    call_end: str
    argument: re.Pattern[str]
    argument_end: str

    def read(self, text: str) -> list[Call] | None:
        calls = []
        place = _after_blanks(text, 0)
        while place < len(text):
            begun = self.call.match(text, place)
            arguments, end = self._arguments(text, begun.end()) if begun else ({}, -1)
            if begun is None or end < 0:
                return None
            calls.append((begun["name"].strip(), dict(arguments)))
            place = _after_blanks(text, end)
        return calls or None

    def _arguments(self, text: str, place: int) -> tuple[dict[str, str], int]:
        """A call's arguments, and where it ends; negative: it doesn't."""
        arguments: dict[str, str] = {}
        place = _after_blanks(text, place)
        while begun := self.argument.match(text, place):
            end = text.find(self.argument_end, begun.end())
            if end < 0:
                return {}, -1
            value = text[begun.end() : end]
            arguments[begun["name"].strip()] = value.removeprefix("\n").removesuffix("\n")
            place = _after_blanks(text, end + len(self.argument_end))
        ended = text.startswith(self.call_end, place) if self.call_end else place == len(text)
        return arguments, place + len(self.call_end) if ended else -1


def _after_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return match.end() if match else place


QWEN: Final = Elements(
    re.compile(r"<function=(?P<name>[^>\n]{1,128})>"),
    "</function>",
    re.compile(r"<parameter=(?P<name>[^>\n]{1,128})>"),
    "</parameter>",
)
GLM_ELEMENTS: Final = Elements(
    re.compile(r"(?P<name>[\w.:-]{1,128})"),
    "",
    re.compile(r"<arg_key>(?P<name>[^<]{1,128})</arg_key>\s*<arg_value>"),
    "</arg_value>",
)
INVOKE: Final = Elements(
    re.compile(r'<invoke name="(?P<name>[^"\n]{1,128})">'),
    "</invoke>",
    re.compile(r'<parameter name="(?P<name>[^"\n]{1,128})"[^>\n]{0,128}>'),
    "</parameter>",
)
PARAM: Final = Elements(
    re.compile(r'(?:<function name=")?(?P<name>[^"\n]{1,128})">'),
    "",
    re.compile(r'<param name="(?P<name>[^"\n]{1,128})">(?:<!\[CDATA\[)?'),
    "</param>",
)

read_invoked: Final = INVOKE.read
"""MiniMax' way."""


def read_tagged(text: str) -> list[Call] | None:
    """JSON, or since Qwen3-Coder elements."""
    return read_json(text) or QWEN.read(text)


def read_glm(text: str) -> list[Call] | None:
    """Likewise, or GLM's way: the name, then a key and a value for each argument."""
    return read_tagged(text) or GLM_ELEMENTS.read(text)


def read_minicpm(text: str) -> list[Call] | None:
    """MiniCPM's way: `<function name="f"><param name="a">`, a value with signs in it as CDATA."""
    calls = PARAM.read(text)
    return calls and [
        (name, {key: str(value).removesuffix("]]>") for key, value in arguments.items()})
        for name, arguments in calls
    ]
