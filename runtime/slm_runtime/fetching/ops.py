"""The operations port of a fetch: alive, and how far."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from typing_extensions import override

from slm_contract.places import LIVENESS_PATH, REPORT_PATH
from slm_runtime.listeners import listen

IDLE_SECONDS: Final = 10


@contextmanager
def operations(host: str, port: int, report: Callable[[], str]) -> Iterator[int]:
    """Answer on a port (0: any free one, which is yielded) while the context lasts.

    Raises
    ------
    PortInUse
    """
    answers = {LIVENESS_PATH: lambda: "ok\n", REPORT_PATH: report}

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_SECONDS
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = answer().encode() if answer else b"There is /livez and /report here.\n"
            self.send_response(HTTPStatus.OK if answer else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Type", "application/json" if answer is report else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Probes are no news."""

    server = ThreadingHTTPServer((host, port), Handler, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = listen(host, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="ops", daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
