"""What a model writes, taken apart while it writes: reasoning, tool calls, and text for people.

A marker may arrive in pieces, so text that could be the beginning of one is held back until it is clear.
Whatever looked like a call and turns out not to be one is text after all: nothing that the model wrote is
lost, but a call or a mark that the limit of tokens cut off, which is no answer for people.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from slm_runtime.api.conversation.growing import CallPiece, GrowingCalls, Notation, ToolCall
from slm_runtime.api.conversation.marks import Marks
from slm_runtime.api.conversation.thoughts import Thoughts
from slm_runtime.api.conversation.tool_readers import Call, Schema, as_declared

_HELD_BLANKS: Final = 1024
"""So many blanks may be held back until it is clear what they belong to; an endless run of them is text."""

_AROUND_CALLS: Final = "{}[]();,` \n"
"""What is left of calls whose last one is followed by something else."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Reasoning:
    text: str


Part = Text | Reasoning | CallPiece | ToolCall


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes calls: between `begin` and `end`, in a notation that `read` understands.

    An empty `begin` stands for a call that is the whole answer, of a tool that was offered. An empty `end`:
    until the answer ends. `read` returns None for what is no call.
    """

    name: str
    begin: str
    end: str
    read: Callable[[str], list[Call] | None]
    openers: tuple[str, ...] = ()
    """What a call that is the whole answer begins with, blanks left out; NAME is any tool's."""
    grows: Sequence[Notation] = ()
    """How its calls are told while they are written; none: when they are whole."""
    demanded: bool = False
    """The answer can be nothing else."""
    signs: tuple[str, ...] = ()
    """Text in a chat template that tells that its model writes this format; none: `begin` is the sign."""


class OutputParser:
    """Parses one choice. Feed it text as it comes, `finish` when the choice ends."""

    def __init__(
        self,
        formats: Sequence[ToolFormat] = (),
        offered: Mapping[str, Schema] | None = None,
        *,
        thinks: Thoughts | None = None,
        thinking: bool = False,
        parallel: bool = True,
    ) -> None:
        """Prepare for one choice.

        Parameters
        ----------
        formats
            How calls may be written. None: no tools were offered, and nothing is a call.
        offered
            The tools' names, and what their parameters look like.
        thinks
            What the model puts around its reasoning.
        thinking
            The prompt has opened the mark already.
        parallel
            False: the first call is the only one; those after it are dropped.
        """
        self._offered = offered or {}
        self._openers = {
            opener.replace("NAME", name): written
            for written in formats
            for opener in written.openers
            for name in (self._offered if "NAME" in opener else ("",))
        }
        self._thinks = thinks
        self._meant = _meanings(formats, thinks)
        self._marks = Marks(self._meant)
        self._end_of_thoughts = Marks([thinks.end] if thinks else [])
        self._end_of_call = Marks([])
        self._state = "thinking" if thinking else "start" if formats or thinks else "text"
        self._may_think = thinks is not None
        """At the answer's head, reasoning may begin."""
        self._written: ToolFormat | None = None
        """The format of the call that is being read."""
        self._read: list[str] = []
        """What was read of it."""
        self._growing = GrowingCalls((), {}, None)
        """The calls in it, as far as they have come."""
        self._parallel = parallel
        self.whole_calls = False
        """Nobody is told of pieces: a call that breaks off, and not by the limit of tokens, is text."""
        self._buffer = ""
        self._ended = False
        self._undecided = 0
        """Tokens of what may be a mark that begins reasoning."""
        self.reasoning_tokens = 0
        """Of the reasoning that was fed, its marks among them."""
        self._thought = False
        """There was reasoning: the blank lines after it are no text."""
        self.called = False
        """A tool was called: the finish reason tells it."""
        self._said = False
        """There was text since the last call: blank lines are part of it."""
        self._gap = ""
        """The blank lines before a call, which are text if it is none."""

    @property
    def thinking(self) -> bool:
        return self._state == "thinking"

    @property
    def plain(self) -> bool:
        """Nothing more can be marked: what comes in goes out, and needn't pass through here."""
        return self._state == "text" and not self._meant and not self._buffer

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

    def read(self, pieces: Iterable[tuple[str, int]], *, cut: bool = False) -> list[Part]:
        """A whole choice: its pieces, each with its number of tokens; `cut` as in `finish`. Calls are whole."""
        if self.plain:
            return _joined([Text("".join(text for text, _ in pieces))])
        self.whole_calls = True
        fed = [part for text, tokens in pieces for part in self.feed(text, tokens)]
        return _merged([*fed, *self.finish(cut=cut)])

    def finish(self, *, cut: bool = False) -> list[Part]:
        """What was held back, now that nothing more comes; `cut`: since no more tokens were allowed."""
        self._ended = True
        parts = list(self._parts())
        rest, self._buffer = self._buffer, ""
        if self._state == "call":
            parts += self._more_of_calls(rest)
            parts += self._calls(closed=False, cut=cut)
            return _joined(parts)
        if cut:
            rest = self._without_half_a_mark(rest)
        if self._state == "thinking":
            parts.append(Reasoning(_without_newlines(rest)))
        elif self._state == "start" or rest.strip() or not self.called:
            parts.append(Text(rest))
        return _joined(parts)

    def _without_half_a_mark(self, rest: str) -> str:
        """Of `<tool_c`, cut off, nobody knows what it means."""
        marks = self._end_of_thoughts if self.thinking else self._marks
        if self._state == "start" and self._may_think and self._thinks is not None:
            marks = Marks([self._thinks.begin, *self._meant])
        half = marks.half(rest)
        return rest[:-half] if half > 1 and not rest[-half].isalnum() else rest

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
        if self._thought:
            self._buffer = begun
        if len(self._buffer) - len(begun) > _HELD_BLANKS:
            self._state = "text"
            return
        if not begun:
            return
        if self._may_think and self._thinks is not None:
            mark = self._thinks.begin
            if begun.startswith(mark):
                self._buffer, self._state, self._thought = begun[len(mark) :], "thinking", False
                return
            if mark.startswith(begun):
                return
        squeezed = "".join(begun[:_HELD_BLANKS].split())
        for opener, written in self._openers.items():
            if squeezed.startswith(opener):
                self._open_call(written)
                return
        open_yet = len(begun) < _HELD_BLANKS and any(one.startswith(squeezed) for one in self._openers)
        self._state = "start" if open_yet else "text"

    def _think(self) -> Iterator[Part]:
        assert self._thinks is not None  # noqa: S101
        end = self._thinks.end
        # The line breaks next to the marks are theirs.
        if not self._thought:
            self._buffer = self._buffer.lstrip("\n")
            self._thought = bool(self._buffer)
        reasoning, mark, rest = self._buffer.partition(end)
        if mark:
            yield Reasoning(_without_newlines(reasoning))
            self._buffer, self._state, self._thought = rest, "start", True
            self._may_think = self._thinks.anywhere
        else:
            held = self._end_of_thoughts.half(self._buffer)
            sure = _without_newlines(self._buffer[: len(self._buffer) - held])
            yield Reasoning(sure)
            self._buffer = self._buffer[len(sure) :]

    def _say(self) -> Iterator[Part]:
        while self._state == "text":
            at, mark = self._marks.first(self._buffer, ended=self._ended)
            said = self._buffer[:at]
            if said.strip() or self._said or len(said) > _HELD_BLANKS:
                self._said = True
                yield Text(said)
            elif not mark:
                return
            self._gap = "" if self._said else said
            self._buffer = self._buffer[at + len(mark) :]
            if not mark:
                return
            meant = self._meant[mark]
            if isinstance(meant, ToolFormat):
                self._open_call(meant)
            elif meant is not None:
                self._state, self._thought = "thinking", False

    def _open_call(self, written: ToolFormat) -> None:
        self._state, self._written, self._read = "call", written, []
        self._end_of_call = Marks([written.end] if written.end else [])
        most = None if self._parallel else 1
        grows = () if self.called and not self._parallel else written.grows
        self._growing = GrowingCalls(grows, self._offered, most)

    def _read_call(self) -> Iterator[Part]:
        at, mark = self._end_of_call.first(self._buffer)
        text, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        yield from self._more_of_calls(text)
        if mark:
            self._state = "text"
            yield from self._calls(closed=True)

    def _more_of_calls(self, text: str) -> Iterator[Part]:
        self._read.append(text)
        yield from self._told(self._growing.more(text))

    def _told(self, parts: Iterable[CallPiece | ToolCall]) -> Iterator[Part]:
        for part in parts:
            if isinstance(part, ToolCall):
                self.called, self._said = True, False
                yield part
            elif not self.whole_calls:
                yield part

    def _calls(self, *, closed: bool, cut: bool = False) -> Iterator[Part]:
        """What is to be told of the text that may be calls, now that it has ended, beyond what was told."""
        written = self._written
        assert written is not None  # noqa: S101
        yield from self._told(self._growing.close())
        text, grown = "".join(self._read), self._growing
        calls = written.read(text)
        lost = cut and (written.begin or written.demanded or self._names_a_tool(text))
        told = grown.begun and not self.whole_calls
        unread = calls is None or (
            not written.begin and self._offered and any(name not in self._offered for name, _ in calls)
        )
        if unread and (told or lost or written.demanded):
            self.called = self.called or (not cut and grown.begun)
        elif unread and grown.whole:
            rest = text[grown.end :].strip(_AROUND_CALLS)
            self._said = bool(rest)
            yield Text(rest)
        elif unread:
            self._said = True
            yield Text(self._gap + written.begin + text + (written.end if closed else ""))
        else:
            more = (calls or [])[grown.whole :]
            if not self._parallel:
                more = [] if self.called else more[:1]
            self.called, self._said = True, False
            for name, arguments in more:
                yield ToolCall(name, as_declared(arguments, self._offered.get(name, {})))

    def _names_a_tool(self, text: str) -> bool:
        """Whether what looks like a call without marks is of a tool that was offered."""
        return any(f'"{name}"' in text or f"{name}(" in text for name in self._offered)


def _meanings(
    formats: Sequence[ToolFormat], thinks: Thoughts | None
) -> dict[str, ToolFormat | Thoughts | None]:
    """What to look for in a text, and what it begins; None: nothing, it only goes."""
    meant: dict[str, ToolFormat | Thoughts | None] = {}
    for written in formats:
        if written.begin:
            meant.setdefault(written.begin, written)
    if thinks is not None and thinks.anywhere:
        meant[thinks.begin] = thinks
    return meant | dict.fromkeys(thinks.silent if thinks else ())


def _without_newlines(text: str) -> str:
    """Without the line breaks at its end, but for those of an endless run."""
    kept = len(text.rstrip("\n"))
    return text[: max(kept, len(text) - _HELD_BLANKS)]


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
    return [part for part in parts if not isinstance(part, Text | Reasoning) or part.text]
