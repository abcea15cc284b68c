"""A translated template as it comes to be: text, statements and values, and the marks that keep Jinja from trimming."""

import re
from collections.abc import Iterator
from typing import Final, Literal

from slm_contract.gotemplate.expressions import quoted

Kind = Literal["text", "statement", "value"]
Part = tuple[Kind, str]

_OTHERWISE_READ: Final = re.compile(r"\{[{%#]|\r|\{$")
"""What Jinja takes for its own or for another character."""


class Writer:
    def __init__(self) -> None:
        self._parts: list[Part] = []

    def text(self, text: str) -> None:
        if self._parts and self._parts[-1][0] == "text":
            text = self._parts.pop()[1] + text
        self._parts.append(("text", text))

    def statement(self, text: str) -> None:
        self._parts.append(("statement", text))

    def value(self, text: str) -> None:
        self._parts.append(("value", text))

    def written(self) -> str:
        """The whole, as the environment that trims blocks and drops a last newline renders it unchanged."""
        parts = list(self._plain())
        out: list[str] = []
        for number, (kind, text) in enumerate(parts):
            if kind != "statement":
                out.append(text)
                continue
            before = parts[number - 1] if number else ("text", "")
            after = parts[number + 1] if number + 1 < len(parts) else ("text", "")
            keeps_before = before[0] == "text" and before[1].endswith((" ", "\t"))
            keeps_after = after[0] == "text" and after[1].startswith("\n")
            out.append(f"{{%{'+' if keeps_before else ''} {text} {'+' if keeps_after else ''}%}}")
        return "".join(out)

    def _plain(self) -> Iterator[Part]:
        for number, (kind, text) in enumerate(self._parts):
            if kind == "value":
                yield kind, f"{{{{ {text} }}}}"
            elif kind == "statement":
                yield kind, text
            elif _OTHERWISE_READ.search(text):
                yield "value", f"{{{{ {quoted(text)} }}}}"
            elif number == len(self._parts) - 1 and text.endswith("\n"):
                yield "text", text[:-1]
                yield "value", '{{ "\\n" }}'
            else:
                yield kind, text
