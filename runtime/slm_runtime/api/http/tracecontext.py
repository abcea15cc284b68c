"""W3C Trace Context: which trace a request belongs to, as its `traceparent` header says."""

import re
from typing import Final, NamedTuple

_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED: Final = 1


class TraceParent(NamedTuple):
    trace: str
    """32 hex digits."""
    span: str
    """16 hex digits: the caller's."""
    sampled: bool
    """Whether the caller records it."""


def parse_parent(header: bytes | None) -> TraceParent | None:
    """None where there is none, or none that can be read: then the request begins a trace of its own."""
    found = None if header is None else _PARENT.fullmatch(header.strip())
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return TraceParent(found[1].decode(), found[2].decode(), bool(int(found[3], 16) & _SAMPLED))
