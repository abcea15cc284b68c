"""Frames on a stream socket: a length of four bytes, then one message in MessagePack."""

import socket
import struct
import threading
from typing import Final, Generic, TypeVar

import msgspec

from slm_runtime.engine.messages import MAX_FRAME
from slm_runtime.engine.structs import Message

Incoming = TypeVar("Incoming")

LENGTH: Final = struct.Struct("!I")
_encoder: Final = msgspec.msgpack.Encoder()


class ChannelError(Exception):
    """The other side doesn't speak our language: the stream can't be used any more."""


def encode(message: Message) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class FrameBuffer(Generic[Incoming]):
    """Cuts what comes in into messages."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[Incoming]") -> None:
        self._decoder = decoder
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Incoming]:
        """All messages that are complete now."""
        self._data += data
        messages: list[Incoming] = []
        start = 0
        while len(self._data) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._data, start)
            if length > MAX_FRAME:
                raise ChannelError(f"a frame of {length} bytes is longer than any message")
            end = start + LENGTH.size + length
            if end > len(self._data):
                break
            with memoryview(self._data) as view:
                messages.append(self._decode(view[start + LENGTH.size : end]))
            start = end
        del self._data[:start]
        return messages

    def _decode(self, body: memoryview) -> Incoming:
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise ChannelError(f"a frame is no message of ours: {error}") from error
        finally:
            body.release()


class BlockingChannel(Generic[Incoming]):
    """The engine process's end: one thread reads, any may write."""

    def __init__(self, connection: socket.socket, decoder: "msgspec.msgpack.Decoder[Incoming]") -> None:
        self._connection = connection
        self._buffer = FrameBuffer(decoder)
        self._writing = threading.Lock()

    def send(self, message: Message) -> None:
        frame = encode(message)
        with self._writing:
            self._connection.sendall(frame)

    def receive(self) -> list[Incoming]:
        """At least one message; none where the other side has closed."""
        while data := self._connection.recv(1 << 18):
            messages = self._buffer.feed(data)
            if messages:
                return messages
        return []
