"""A web server whose files misbehave as they are told, and which remembers what it was asked and what it sent."""

import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

PIECE = 1 << 14


@dataclass
class File:
    """What the server has under a path. Tests change it while it is being served."""

    data: bytes = b""
    etag: str | None = '"1"'
    ranges: bool = True
    status: int = 200
    """Anything else than 200 is answered instead of the data."""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Each answer breaks off after so many bytes."""
    claims: int | None = None
    """The size that it says it has."""
    more: int = 0
    """Bytes that an answer to a range has behind those that were asked for."""
    hold: threading.Event | None = None
    """What comes behind `hold_after` bytes of an answer waits for this."""
    hold_after: int = 0
    login: str | None = None
    """The Authorization header without which it answers 401."""
    before: Callable[["File"], None] = lambda _: None
    """Called before each answer."""


@dataclass(frozen=True)
class Asked:
    path: str
    range: str | None
    authorization: str | None


class QuietServer(ThreadingHTTPServer):
    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what these tests are about."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class WebServer:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, File] = {}
        self.asked: list[Asked] = []
        self.sent = 0
        """Bytes of bodies that were handed to the kernel."""
        self._lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}/{path}"

    def put(self, path: str, data: bytes = b"", **how: object) -> str:
        """Publish a file; answer its URL."""
        self.files[f"/{path}"] = File(data, **how)  # type: ignore[arg-type]
        return self.url(path)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(web) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                asked = Asked(path, self.headers.get("Range"), self.headers.get("Authorization"))
                with web._lock:
                    web.asked.append(asked)
                file = web.files.get(path, File(status=404))
                file.before(file)
                try:
                    self._answer(file, asked)
                except (ConnectionError, ssl.SSLError):
                    self.close_connection = True

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.do_GET()

            def _answer(self, file: File, asked: Asked) -> None:
                if file.login is not None and asked.authorization != file.login:
                    self._send(401, {"WWW-Authenticate": "Basic"}, b"", file)
                elif file.status != 200:
                    self._send(file.status, file.headers, b"", file)
                else:
                    self._send_data(file, asked)

            def _send_data(self, file: File, asked: Asked) -> None:
                size = len(file.data) if file.claims is None else file.claims
                headers = {**file.headers, **({"ETag": file.etag} if file.etag else {})}
                match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.range or "")
                if not match or not file.ranges:
                    self._send(200, {**headers, "Content-Length": str(size)}, file.data, file)
                    return
                first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
                if first >= size:
                    self._send(416, {"Content-Range": f"bytes */{size}"}, b"", file)
                    return
                part = {
                    "Content-Range": f"bytes {first}-{last}/{size}",
                    "Content-Length": str(last - first + 1 + file.more),
                }
                body = file.data[first : last + 1] + bytes(file.more)
                self._send(206, {**headers, **part}, body, file)

            def _send(self, status: int, headers: dict[str, str], body: bytes, file: File) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                for at in range(0, len(body), PIECE):
                    piece = body[at : at + PIECE]
                    if file.cut_after is not None and at + len(piece) > file.cut_after:
                        self.wfile.write(piece[: max(0, file.cut_after - at)])
                        self.close_connection = True
                        return
                    if file.hold is not None and at + len(piece) > file.hold_after:
                        file.hold.wait(30)
                    with web._lock:
                        web.sent += len(piece)
                    self.wfile.write(piece)
                if int(headers.get("Content-Length") or len(body)) != len(body):
                    self.close_connection = True

            @override
            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    server = WebServer(tls)
    try:
        yield server
    finally:
        server.close()
