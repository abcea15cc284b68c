"""A call while it is written, where it can be nothing else: its name once that is known, then its arguments as they come."""

import re
import secrets
import string
from dataclasses import dataclass
from typing import Final

import msgspec

_ALPHANUMERIC: Final = string.ascii_letters + string.digits
_HEAD: Final = re.compile(r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_HEAD_CHARACTERS: Final = 1024
"""A call whose arguments haven't begun by then is read when it is whole."""
_MARK: Final = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


def new_call_id() -> str:
    """Mistral's templates take back nothing but nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


@dataclass(frozen=True)
class CallPiece:
    """More of a call. The whole one follows under the same id, unless the limit of tokens cuts it off."""

    id: str
    name: str
    text: str
    """Of its arguments, in JSON; the first piece has none."""


class GrowingCall:
    """Reads `{"name": ..., "arguments": {...}}` as far as it has come."""

    def __init__(self) -> None:
        self.id = new_call_id()
        self._name = ""
        self._sent: int | None = None
        """How much of the text was given out; None: the name isn't known yet."""
        self._depth = 0
        self._quoted = False
        self._whole = False

    @property
    def begun(self) -> bool:
        return self._sent is not None

    def more(self, text: str) -> list[CallPiece]:
        """What `text`, all that there is of the call, has beyond what was given out."""
        pieces = []
        if self._sent is None:
            head = _HEAD.match(text[:_HEAD_CHARACTERS])
            if head is None:
                return []
            self._name, self._sent = msgspec.json.decode(head["name"], type=str), head.end()
            pieces.append(CallPiece(self.id, self._name, ""))
        end = self._certain(text, self._sent)
        if end > self._sent:
            pieces.append(CallPiece(self.id, self._name, text[self._sent : end]))
            self._sent = end
        return pieces

    def _certain(self, text: str, start: int) -> int:
        """Where the arguments end, as far as they have come; what closes the call isn't theirs."""
        if self._whole:
            return start
        end = start
        for mark in _MARK.finditer(text, start):
            end = mark.end()
            if mark[0] == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if mark[0] in "{[" else -1
                if self._depth == 0:
                    self._whole = True
                    return end
        # An escape may have come by half.
        return len(text) - text.endswith("\\", end)
