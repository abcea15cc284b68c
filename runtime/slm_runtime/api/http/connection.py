"""uvicorn's HTTP protocol with bounds on what one connection may cost.

uvicorn bounds neither the time nor the size of a request's head, nor how long a client may leave our bytes
unread. Each of these holds memory and a descriptor, so each has an end here.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from typing_extensions import override
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS: Final = 15.0
"""From the connection, or a request's first byte, to the end of its headers."""
HEAD_BYTES: Final = 64 * 1024
STALL_SECONDS: Final = 60.0
"""A client that takes nothing of what waits for it this long is gone."""
CONNECTIONS: Final = 4096
REST_SECONDS: Final = 60.0
"""For what is left of a body whose request was answered before it came."""
LINGER_SECONDS: Final = 2.0
"""How long what follows a refused head is read and thrown away."""


class HeadTooLarge(Exception):
    """Raised in a parser callback; httptools turns it into a parse error."""


class BoundedProtocol(HttpToolsProtocol):
    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS
    rest_seconds = REST_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unread = math.inf
        """Bytes that waited for the client when the connection had been idle for long."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._await_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head_timer)
        _cancel(self._stall_timer)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._idle and not self.transport.is_closing():
            # No request begins with these bytes, and uvicorn no longer counts the connection as idle.
            self._await_head(self.rest_seconds)

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size() > 0:
            _cancel(self._stall_timer)
            self._watch_reader()

    @override
    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._unread = math.inf
        self._await_head()
        super().on_message_begin()

    @override
    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        _cancel(self._head_timer)
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            # Its task hasn't begun.
            self.cycle.send = _without_chunks(self.cycle)  # type: ignore[method-assign, assignment]

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    @override
    def resume_writing(self) -> None:
        _cancel(self._stall_timer)
        super().resume_writing()

    @override
    def timeout_keep_alive_handler(self) -> None:
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if self._unread == 0:
            super().timeout_keep_alive_handler()
        elif self._unread < before:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self.transport.abort()

    @override
    def send_400_response(self, msg: str) -> None:
        sentence = "This is not a valid HTTP/1.1 request"
        if self._head_bytes > HEAD_BYTES:
            sentence += f": its request line and headers exceed {HEAD_BYTES} bytes"
        error = {"message": sentence + ".", "type": "invalid_request_error", "param": None, "code": None}
        body = msgspec.json.encode({"error": error})
        self._refused = True
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (len(body), body)
        )
        # Closing with bytes unread resets the connection, and the client would never see the answer.
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    @property
    def _idle(self) -> bool:
        """Every request was answered, and no time runs for another."""
        cycle: RequestResponseCycle | None = self.cycle
        waiting = self._head_timer is not None and not self._head_timer.cancelled()
        return cycle is not None and cycle.response_complete and not waiting

    def _watch_reader(self) -> None:
        """The whole of a large answer is one write, so what tells is whether less and less is left of it."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._watch_reader()
            else:
                self.transport.abort()

        self._stall_timer = self.loop.call_later(self.stall_seconds, look)

    def _await_head(self, seconds: float | None = None) -> None:
        _cancel(self._head_timer)
        self._head_timer = self.loop.call_later(seconds or self.head_seconds, self.transport.abort)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise HeadTooLarge


def _without_chunks(cycle: RequestResponseCycle) -> Callable[[ASGISendEvent], Coroutine[Any, Any, None]]:
    """Send as HTTP/1.0 reads it: what has no length ends with the connection. uvicorn would write chunks."""
    send = cycle.send
    measured = False

    async def send_plain(message: ASGISendEvent) -> None:
        nonlocal measured
        if message["type"] == "http.response.start":
            measured = any(name == b"content-length" for name, _ in message.get("headers", []))
            cycle.chunked_encoding = None if measured else False
        elif message["type"] == "http.response.body" and not measured:
            if cycle.flow.write_paused:
                await cycle.flow.drain()
            # To uvicorn what has no chunks has a length: each piece's own, up to the last.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_plain


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
