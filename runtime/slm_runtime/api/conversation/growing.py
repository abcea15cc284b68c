"""Calls while they are written: each one's name once that is known, then its arguments as they come.

A notation says how a call begins; from there on it is a call, and its pieces go out. Until then it may be text.
"""

import re
import secrets
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from slm_runtime.api.conversation.growing_arguments import Arguments
from slm_runtime.api.conversation.tool_readers import Schema, one_object

_ALPHANUMERIC: Final = string.ascii_letters + string.digits
_HEAD_CHARACTERS: Final = 1024
"""A call whose arguments haven't begun by then is read when it is whole."""


def new_call_id() -> str:
    """Mistral's templates take back nothing but nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


@dataclass(frozen=True)
class CallPiece:
    """More of a call. The whole one follows under the same id, unless it breaks off."""

    id: str
    name: str
    text: str
    """Of its arguments, in JSON; the first piece has none."""


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=new_call_id)

    @property
    def arguments_text(self) -> str:
        return msgspec.json.encode(self.arguments).decode()


class Broken(Exception):
    """What was read can't be a call's arguments."""


class Body(Protocol):
    """Reads one call's arguments."""

    def take(self, text: str) -> tuple[int, bool]:
        """Read what is certain of a text; returns how much that is, and whether the arguments have ended.

        What isn't taken comes again, with more behind it.

        Raises
        ------
        Broken
        """
        ...

    def close(self) -> bool:
        """Nothing more comes; returns whether that ends the arguments."""
        ...


@dataclass(frozen=True)
class Notation:
    head: re.Pattern[str]
    """All before a call's arguments, what ends the call before it included; the group `name` may be in JSON's quotes.

    Where it matches a text, it matches every longer one alike."""
    body: Callable[[Arguments], Body]


class GrowingCalls:
    """Reads what stands between two marks, which may be calls."""

    def __init__(
        self, notations: Sequence[Notation], offered: Mapping[str, Schema], most: int | None
    ) -> None:
        """Prepare for one such text.

        Parameters
        ----------
        offered
            The tools: what isn't one of them may be text. Empty: there is nothing else than calls.
        most
            So many calls grow; None: all.
        """
        self._notations = notations
        self._offered = offered
        self._most = most
        self._buffer = ""
        self._place = 0
        """Where the buffer begins in the text."""
        self._name = ""
        self._id = ""
        self._arguments = Arguments({})
        self._body: Body | None = None
        self._told = False
        """Of the call that is being read, a piece went out."""
        self.whole = 0
        """Calls that have ended."""
        self.end = 0
        """Where the last of them did."""

    @property
    def begun(self) -> bool:
        """A call has pieces that went out, and no end."""
        return self._told

    def more(self, text: str) -> Iterator[CallPiece | ToolCall]:
        self._buffer += text
        while self._notations and (self._body is not None or self._begin()):
            body = self._body
            assert body is not None  # noqa: S101
            try:
                used, ended = body.take(self._buffer)
            except Broken:
                self._stop()
                return
            self._buffer, self._place = self._buffer[used:], self._place + used
            yield from self._pieces()
            if not ended:
                return
            yield from self._ended()

    def close(self) -> Iterator[CallPiece | ToolCall]:
        """Nothing more comes."""
        if self._body is not None and self._body.close():
            yield from self._pieces()
            yield from self._ended()

    def _begin(self) -> bool:
        """Whether a call's arguments begin in the buffer."""
        text = self._buffer[:_HEAD_CHARACTERS]
        heads = ((notation, notation.head.match(text)) for notation in self._notations)
        notation, head = next((found for found in heads if found[1]), (None, None))
        if notation is None or head is None:
            if len(self._buffer) > _HEAD_CHARACTERS:
                self._stop()
            return False
        name = _plain(head["name"])
        if not name or (self._offered and name not in self._offered):
            self._stop()
            return False
        self._name, self._id, self._told = name, new_call_id(), False
        self._buffer, self._place = self._buffer[head.end() :], self._place + head.end()
        self._arguments = Arguments(self._offered.get(name, {}))
        self._body = notation.body(self._arguments)
        return True

    def _pieces(self) -> Iterator[CallPiece]:
        text = self._arguments.fresh()
        if not text:
            return
        if not self._told:
            self._told = True
            yield CallPiece(self._id, self._name, "")
        yield CallPiece(self._id, self._name, text)

    def _ended(self) -> Iterator[ToolCall]:
        arguments = one_object(self._arguments.text)
        if arguments is None:
            self._stop()
            return
        self._body, self._told = None, False
        self.whole, self.end = self.whole + 1, self._place
        if self.whole == self._most:
            self._stop()
        yield ToolCall(self._name, arguments, self._id)

    def _stop(self) -> None:
        """Nothing more grows here; what is left is read when it is whole."""
        self._notations, self._body, self._buffer = (), None, ""


def _plain(name: str) -> str:
    if not name.startswith('"'):
        return name.strip()
    try:
        return msgspec.json.decode(name, type=str)
    except msgspec.DecodeError:
        return ""
