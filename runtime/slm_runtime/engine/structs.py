"""What everything is made of that crosses the border between API process and engine process."""

import msgspec


class Message(msgspec.Struct, tag=True, array_like=True):
    """Base of everything that is a frame of its own."""


class Value(msgspec.Struct, array_like=True):
    """Base of what travels inside a message."""
