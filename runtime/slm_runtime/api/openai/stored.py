"""Responses that are kept for a while, so that clients need not send a conversation again: in memory, and bounded."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

BYTES: Final = 64 << 20
"""Of all that is kept."""
SECONDS: Final = 3600.0

Item = dict[str, Any]


class Kept(msgspec.Struct):
    """One response, and what it was made of."""

    response: dict[str, Any]
    before: list[Item]
    """Of the conversation that it goes on with."""
    given: list[Item]

    @property
    def conversation(self) -> list[Item]:
        output: list[Item] = self.response["output"]
        return [*self.before, *self.given, *output]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Kept).decode
_Key = tuple[str, str]


@dataclass
class StoredResponses:
    """The newest ones, each for whom it was made: what goes first is the oldest.

    They are held as bytes: those are what can be counted.
    """

    most: int
    """So many; 0: none."""
    clock: Callable[[], float] = time.monotonic
    _kept: "OrderedDict[_Key, tuple[float, bytes]]" = field(default_factory=OrderedDict)
    _items: dict[_Key, str] = field(default_factory=dict)
    """Of items of output, the responses that have them."""
    _bytes: int = 0

    def keep(self, owner: str, kept: Kept) -> None:
        data = _encode(kept)
        if not self.most or len(data) > BYTES:
            return
        self._kept[owner, kept.response["id"]] = (self.clock(), data)
        self._bytes += len(data)
        for item in kept.response["output"]:
            self._items[owner, item["id"]] = kept.response["id"]
        while len(self._kept) > self.most or self._bytes > BYTES:
            self._drop(next(iter(self._kept)))

    def find(self, owner: str, name: str) -> Kept | None:
        self._forget()
        found = self._kept.get((owner, name))
        return None if found is None else _decode(found[1])

    def item(self, owner: str, name: str) -> Item | None:
        """One item of a response's output, by its own name."""
        kept = self.find(owner, self._items.get((owner, name), ""))
        return None if kept is None else next(one for one in kept.response["output"] if one["id"] == name)

    def remove(self, owner: str, name: str) -> bool:
        self._forget()
        if (owner, name) not in self._kept:
            return False
        self._drop((owner, name))
        return True

    def _forget(self) -> None:
        """What is too old goes."""
        now = self.clock()
        while self._kept and now - next(iter(self._kept.values()))[0] > SECONDS:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        _, data = self._kept.pop(key)
        self._bytes -= len(data)
        for item in _decode(data).response["output"]:
            self._items.pop((key[0], item["id"]), None)
