"""Server-sent events, written with as little work for each token as there can be."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from slm_runtime.api.http.exchange import Headers

HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies that buffer turn a stream into one late answer.
    (b"x-accel-buffering", b"no"),
]
COMMENT: Final = b": the answer is on its way\n\n"
"""What readers of events pass over."""
DONE: Final = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(document: Any) -> bytes:
    return b"data: " + _encoder.encode(document) + b"\n\n"


def typed(document: dict[str, Any]) -> bytes:
    """An event that has its document's type as its name."""
    kind: str = document["type"]
    return b"event: " + kind.encode() + b"\n" + event(document)


class TextEvent:
    """An event whose one varying part is a text: the rest is encoded once.

    `document` must contain `mark` once, as a string value.
    """

    MARK: Final = "\x00text\x00"

    def __init__(self, document: Any, write: Callable[[Any], bytes] = event) -> None:
        before, after = write(document).split(_encoder.encode(self.MARK))
        self._before = before
        self._after = after

    def of(self, text: str) -> bytes:
        return self._before + _encoder.encode(text) + self._after
