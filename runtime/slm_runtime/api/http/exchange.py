"""A request and its answer, just above raw ASGI: bounded bodies, JSON, what logs and metrics read."""

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final, NoReturn

import msgspec

from slm_runtime.api.http.auth import ANONYMOUS
from slm_runtime.api.http.bodies import SMALL_BYTES, Bodies
from slm_runtime.api.http.problems import ApiError, BadRequest, PayloadTooLarge, RequestTimeout, TooBusy
from slm_runtime.api.http.proxies import Proxies

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

BODY_BYTES: Final = 8 * 1024 * 1024
"""More than a million tokens of text; a longer body is refused while it comes in."""
BODY_SECONDS: Final = 60.0
"""The whole body must have come by then."""
TURN_SECONDS: Final = 20.0
"""How long a large body waits until others have given up the memory that it needs."""
LINGER_BYTES: Final = 64 * 1024 * 1024
LINGER_SECONDS: Final = 5.0
"""How much more of a body too large is taken and thrown away, so that its sender reads the answer."""

USER_LENGTH: Final = 128

JSON: Final = (b"content-type", b"application/json")


def _number(written: str) -> float:
    """To JSON Schema, and so to the types that check requests, 1.0 is an integer."""
    value = float(written)
    if math.isinf(value):
        raise msgspec.DecodeError("Number out of range")
    return int(value) if value.is_integer() else value


_decoder: Final = msgspec.json.Decoder(float_hook=_number)


class Disconnected(Exception):
    """The client went away; nobody is left to answer."""


class Exchange:
    """One request, and what became of it."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        bodies: Bodies,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope.get("raw_path") or self.path.encode()
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        client = scope.get("client")
        self.client: str = client[0] if client else ""
        self.proxied = False
        """A proxy that is trusted brought it: `client` and `user` are whom it asks for."""
        self.user = ""
        """Whom the request says it is for."""
        self._headers: Headers = scope["headers"]
        self._receive = receive
        self._send = send
        self._more_body = True
        self._bodies = bodies
        self._leaving = leaving
        """Whether the next request of this client should go to another server."""
        self.held = contextlib.AsyncExitStack()
        """What is given back when the request has been answered."""
        self.key_name = ANONYMOUS
        self.route = "unknown"
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.outcome: dict[str, Any] = {}
        """What a handler adds to the audit line: model, token counts, finish reason. Never text."""
        self.common_headers: Headers = []
        """What the answer carries, whichever it is."""
        self.close_connection = False
        self.id = f"req_{secrets.token_hex(12)}"
        """Told in the answer and in the audit log."""
        self.complete = False
        """The whole answer was handed to the server."""

    @property
    def started(self) -> bool:
        """True once the status line is out, so that no other can be sent."""
        return self.status != 0

    @property
    def _body_to_come(self) -> bool:
        """Closed now, the connection would be reset under a client that still sends."""
        announced = self.header(b"content-length") or self.header(b"transfer-encoding") or b"0"
        return self._more_body and announced != b"0"

    @property
    def speaks_ollama(self) -> bool:
        return self.path.startswith("/api/")

    @property
    def caller(self) -> str:
        """Who asks, for fairness: many may share a key, and many an address.

        A user's name counts only where a trusted proxy brought it: whoever asks would be many else.
        """
        user = f"#{self.user[:USER_LENGTH]}" if self.proxied and self.user else ""
        return f"{self.key_name}@{self.client}{user}"

    def come_through(self, proxies: Proxies) -> None:
        """Take a trusted proxy's word for whom it asks for."""
        self.proxied = proxies.trusts(self.client)
        if self.proxied:
            self.client = proxies.client(self.client, self.header(b"x-forwarded-for"))
            self.user = proxies.user(self._headers)

    def tell_ignored(self, names: list[str]) -> None:
        """Say in the answer's head what of the request had no effect."""
        if names:
            self.common_headers.append((b"x-slm-ignored-fields", ", ".join(names).encode()))

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self._headers if key == name), None)

    async def body(self, limit: int = BODY_BYTES, seconds: float = BODY_SECONDS) -> bytes:
        """Read the whole body.

        Raises
        ------
        PayloadTooLarge, RequestTimeout, TooBusy, BadRequest, Disconnected
        """
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            await self._refuse_body(_too_large(limit))
        size = int(declared) if declared is not None and declared.isdigit() else SMALL_BYTES
        if size > SMALL_BYTES:
            await self._take_turn(size)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                async for chunk in self._body_chunks():
                    chunks.append(chunk)
                    if self.bytes_in > limit:
                        chunks.clear()
                        await self._refuse_body(_too_large(limit))
                    if self.bytes_in > size:
                        await self._take_turn(limit)
                        size = limit
        except TimeoutError:
            self.close_connection = True
            raise RequestTimeout(f"The request's body did not arrive within {seconds:g} seconds.") from None
        return b"".join(chunks)

    async def _take_turn(self, size: int) -> None:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self.held.enter_async_context(self._bodies.turn(size))
        except TimeoutError:
            await self._refuse_body(
                TooBusy(
                    "Requests as large as this one are being served already; try again in a while.",
                    retry_after=TURN_SECONDS,
                )
            )

    async def _body_chunks(self) -> AsyncIterator[bytes]:
        while self._more_body:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk: bytes = message.get("body", b"")
            self.bytes_in += len(chunk)
            self._more_body = message.get("more_body", False)
            yield chunk

    async def _refuse_body(self, error: ApiError) -> NoReturn:
        # What is left of the body must not be read as the next request.
        self.close_connection = True
        if self.header(b"expect") is None:
            # A client that is still sending when its connection closes never reads why: some more is taken.
            most = self.bytes_in + LINGER_BYTES
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    async for _ in self._body_chunks():
                        if self.bytes_in > most:
                            break
        raise error

    async def json(self) -> dict[str, Any]:
        """Read the body as a JSON object.

        Raises
        ------
        BadRequest
            Not JSON, not called JSON, not UTF-8, or no object.
        """
        body = await self.body()
        self._check_media_type()
        try:
            document = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(
                f"The request's body is not valid JSON: {error}. Send one JSON object in UTF-8."
            ) from None
        except RecursionError:
            raise BadRequest("The request's body is nested too deeply.") from None
        if not isinstance(document, dict):
            raise BadRequest("The request's body must be a JSON object.")
        return document

    def _check_media_type(self) -> None:
        encoding = (self.header(b"content-encoding") or b"identity").decode("latin-1")
        if encoding.lower() != "identity":
            raise BadRequest(
                f"The request's body is encoded as {encoding[:50]!r}; send it as it is.",
                code="unsupported_content_encoding",
            )
        kind = (self.header(b"content-type") or JSON[1]).decode("latin-1")
        # Ollama's users send bare `curl -d`, which calls everything a form; OpenAI takes nothing but JSON.
        if kind.partition(";")[0].strip().lower() != "application/json" and not self.speaks_ollama:
            raise BadRequest(
                f"Unsupported content type: {kind[:100]!r}. Send 'Content-Type: application/json'.",
                code="unsupported_content_type",
            )

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        headers = [*self.common_headers, *headers, (b"x-request-id", self.id.encode())]
        if self.close_connection or (self._leaving() and not self._body_to_come):
            headers = [*headers, (b"connection", b"close")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        self.bytes_out += len(chunk)
        self.complete = not more
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def respond(self, status: int, body: bytes, headers: Headers) -> None:
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.write(body, more=False)

    async def respond_nothing(self, headers: Headers) -> None:
        """204: an answer that has no body, and so no length."""
        await self.start(204, headers)
        await self.write(b"", more=False)

    async def respond_json(self, document: Any, status: int = 200, headers: Headers | None = None) -> None:
        await self.respond(status, msgspec.json.encode(document), [JSON, *(headers or [])])

    async def respond_error(self, error: ApiError) -> None:
        """In the envelope of the protocol that the path belongs to."""
        if self.speaks_ollama:
            document = error.ollama()
        elif self.path.startswith("/v1/messages"):
            document = error.anthropic()
        else:
            document = error.openai()
        await self.respond_json(document, error.status, error.headers())

    async def disconnected(self) -> None:
        """Return when the client has gone, or its answer is complete. The body must have been read."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request's body is larger than {limit} bytes, which no prompt for this model can need."
    )


Handler = Callable[[Exchange], Awaitable[None]]
