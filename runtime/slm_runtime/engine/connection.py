"""The API process's end of the socket, and the process at the other end."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Callable
from typing import cast

import msgspec
from typing_extensions import override

from slm_runtime.engine.channel import ChannelError, FrameBuffer, encode
from slm_runtime.engine.launch import Launched
from slm_runtime.engine.messages import FromEngine
from slm_runtime.engine.structs import Message


class Connection(asyncio.Protocol):
    """Hands over each message; `closed` is done when no more can come."""

    def __init__(self, receive: Callable[[FromEngine], None]) -> None:
        self._receive = receive
        decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
        self._buffer = FrameBuffer(decoder)
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        try:
            for message in self._buffer.feed(data):
                self._receive(message)
        except ChannelError:
            self.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class EngineProcess:
    """One life of the engine process."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: Connection) -> None:
        self._process = process
        self.connection = connection

    @classmethod
    async def connected(cls, launched: Launched, receive: Callable[[FromEngine], None]) -> "EngineProcess":
        """Take over a process that was started."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(receive), sock=launched.socket)
        except BaseException:
            launched.process.kill()
            launched.process.wait()
            raise
        return cls(launched.process, connection)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> str:
        """Wait for its end; returns how it came."""
        await self.connection.closed
        code = await self.kill()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"the engine process was killed by {signal.Signals(-code).name}"
        return f"the engine process ended with exit code {code}"

    async def kill(self) -> int:
        """End it, whatever it does; returns its exit code. One that is dead already keeps its own."""
        self.connection.close()
        self._process.kill()
        return await asyncio.to_thread(self._process.wait)
