"""What a model writes, taken apart while it writes: reasoning, tool calls, and text for people.

A marker may arrive in pieces, so text that could be the beginning of one is held back until it is clear.
Whatever looked like a call and turns out not to be one is text after all: nothing that the model wrote is
lost.
"""

import secrets
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

THINK_BEGIN: Final = "<think>"
THINK_END: Final = "</think>"
_ALPHANUMERIC: Final = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Reasoning:
    text: str


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9)))
    """Mistral's templates take back nothing but nine letters and digits."""

    @property
    def arguments_text(self) -> str:
        return msgspec.json.encode(self.arguments).decode()


Part = Text | Reasoning | ToolCall
Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes calls: between `begin` and `end`, in a notation that `read` understands.

    An empty `begin` stands for a call that is the whole answer, from its first brace on. An empty `end`:
    until the answer ends. `read` returns None for what is no call.
    """

    name: str
    begin: str
    end: str
    read: Callable[[str], list[Call] | None]
    openers: tuple[str, ...] = ("{", "[")
    """What a call that is the whole answer begins with."""
    sign: str = ""
    """Text in a chat template that tells that its model writes this format; empty: `begin` is the sign."""


class OutputParser:
    """Parses one choice. Feed it text as it comes, `finish` when the choice ends."""

    def __init__(
        self,
        tool_format: ToolFormat | None = None,
        *,
        thinks: bool = False,
        thinking: bool = False,
        parallel: bool = True,
    ) -> None:
        """Prepare for one choice.

        Parameters
        ----------
        tool_format
            None: no tools were offered, and nothing is a call.
        thinks
            The model marks its reasoning with `<think>`.
        thinking
            The prompt has opened the mark already.
        parallel
            False: the first call is the only one; those after it are dropped.
        """
        self._format = tool_format
        self._thinks = thinks or thinking
        self._state = "thinking" if thinking else "start"
        self._parallel = parallel
        self._buffer = ""
        self._undecided = 0
        """Tokens of what may be a mark that begins reasoning."""
        self.reasoning_tokens = 0
        """Of the reasoning that was fed, its marks among them."""
        self._thought = False
        """There was reasoning: the blank lines after it are no text."""
        self.called = False
        """A tool was called: the finish reason tells it."""

    @property
    def thinking(self) -> bool:
        return self._state == "thinking"

    @property
    def plain(self) -> bool:
        """Nothing is marked: what comes in goes out, and needn't pass through here."""
        return self._format is None and not self._thinks

    def feed(self, text: str, tokens: int = 0) -> list[Part]:
        """Take text in, and how many tokens it has; returns what is certain now."""
        thinking = self.thinking
        self._buffer += text
        parts = _joined(self._parts())
        if thinking or self.thinking or any(isinstance(part, Reasoning) for part in parts):
            self.reasoning_tokens += self._undecided + tokens
            self._undecided = 0
        else:
            self._undecided = self._undecided + tokens if self._state == "start" else 0
        return parts

    def read(self, pieces: Iterable[tuple[str, int]]) -> list[Part]:
        """A whole choice: its pieces, each with its number of tokens."""
        if self.plain:
            return _joined([Text("".join(text for text, _ in pieces))])
        fed = [part for text, tokens in pieces for part in self.feed(text, tokens)]
        return _merged([*fed, *self.finish()])

    def finish(self) -> list[Part]:
        """What was held back, now that nothing more comes."""
        parts = list(self._parts())
        rest, self._buffer = self._buffer, ""
        if self._state == "thinking":
            parts.append(Reasoning(rest.rstrip("\n")))
        elif self._state == "call" or (
            self._state == "start" and self._format is not None and not self._format.begin
        ):
            parts += self._calls(rest, closed=False)
        else:
            parts.append(Text(rest.lstrip() if self._state == "start" and self._thought else rest))
        return _joined(parts)

    def _parts(self) -> Iterator[Part]:
        """Consume as much of the buffer as is certain, from state to state."""
        state = None
        while state != self._state:
            state = self._state
            if state == "start":
                self._leave_start()
            elif state == "thinking":
                yield from self._think()
            elif state == "text":
                yield from self._say()
            else:
                yield from self._read_call()

    def _leave_start(self) -> None:
        """Decide by the first characters that aren't blank: reasoning, a bare call, or text."""
        begun = self._buffer.lstrip()
        if not begun:
            return
        if self._thinks and THINK_BEGIN.startswith(begun[: len(THINK_BEGIN)]):
            if begun.startswith(THINK_BEGIN):
                self._buffer = begun[len(THINK_BEGIN) :]
                self._state = "thinking"
            return
        if self._format is not None and not self._format.begin:
            openers = self._format.openers
            if any(opener.startswith(begun[: len(opener)]) for opener in openers):
                return
        if self._thought:
            self._buffer = begun
        self._state = "text"

    def _think(self) -> Iterator[Part]:
        # The line breaks next to the marks are theirs.
        if not self._thought:
            self._buffer = self._buffer.lstrip("\n")
            self._thought = bool(self._buffer)
        reasoning, mark, rest = self._buffer.partition(THINK_END)
        if mark:
            yield Reasoning(reasoning.rstrip("\n"))
            self._buffer, self._state, self._thinks, self._thought = rest, "start", False, True
        else:
            sure = self._buffer[: len(self._buffer) - _held(self._buffer, THINK_END)].rstrip("\n")
            yield Reasoning(sure)
            self._buffer = self._buffer[len(sure) :]

    def _say(self) -> Iterator[Part]:
        begin = self._format.begin if self._format is not None else ""
        if not begin:
            yield Text(self._buffer)
            self._buffer = ""
            return
        said, mark, rest = self._buffer.partition(begin)
        if mark:
            self._buffer, self._state = rest, "call"
        else:
            keep = _held(self._buffer, begin)
            said, self._buffer = (
                self._buffer[: len(self._buffer) - keep],
                self._buffer[len(self._buffer) - keep :],
            )
        # The blank lines between calls are no text.
        if said.strip() or not (self.called or mark):
            yield Text(said)

    def _read_call(self) -> Iterator[Part]:
        assert self._format is not None  # noqa: S101
        if not self._format.end:
            return
        call, mark, rest = self._buffer.partition(self._format.end)
        if mark:
            self._buffer, self._state = rest, "text"
            yield from self._calls(call, closed=True)

    def _calls(self, text: str, *, closed: bool) -> list[Part]:
        assert self._format is not None  # noqa: S101
        calls = self._format.read(text)
        if calls is None:
            begin = self._format.begin if self._state != "start" or self._format.begin else ""
            return [Text(begin + text + (self._format.end if closed else ""))]
        if not self._parallel:
            calls = [] if self.called else calls[:1]
        self.called = True
        return [ToolCall(name, arguments) for name, arguments in calls]


def _held(text: str, marker: str) -> int:
    """How many characters at the end of `text` may be the beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((size for size in range(longest, 0, -1) if marker.startswith(text[-size:])), 0)


def _merged(parts: list[Part]) -> list[Part]:
    """Text beside text, and reasoning beside reasoning, as one."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Text) and isinstance(last, Text):
            merged[-1] = Text(last.text + part.text)
        elif isinstance(part, Reasoning) and isinstance(last, Reasoning):
            merged[-1] = Reasoning(last.text + part.text)
        else:
            merged.append(part)
    return merged


def _joined(parts: "Iterator[Part] | list[Part]") -> list[Part]:
    """Without the empty parts."""
    return [part for part in parts if isinstance(part, ToolCall) or part.text]
