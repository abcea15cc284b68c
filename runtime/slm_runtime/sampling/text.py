"""From tokens to text that may be shown: whole characters, and nothing that may still become a stop string."""

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one choice."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._overlaps = [0] * len(stops)

    def push(self, piece: bytes) -> tuple[str, str | None]:
        """Take in the bytes of a token; returns the text that is free to go, and the stop string if one is there."""
        fresh = self._decoder.decode(piece)
        text = self._held + fresh
        if not self._stops:
            return text, None
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            place, stop = min(found, key=lambda pair: (pair[0], -len(pair[1])))
            self._held = ""
            return text[:place], stop
        pairs = zip(self._stops, self._overlaps, strict=True)
        self._overlaps = [_overlap(text, stop, before + len(fresh)) for stop, before in pairs]
        free = len(text) - max(self._overlaps)
        self._held = text[free:]
        return text[:free], None

    def flush(self) -> str:
        """What was held back, now that no more comes. A character that was begun is dropped."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str, most: int) -> int:
    """Characters at the end of `text` that are a beginning of `stop`: no more than before, and what was added."""
    for size in range(min(most, len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
