"""The servers on listening sockets."""

import contextlib
import socket
import threading
from collections.abc import Generator
from typing import Final

import uvicorn
from typing_extensions import override

from slm_runtime.api.http.connection import BoundedProtocol
from slm_runtime.api.http.exchange import Asgi
from slm_runtime.listeners import BACKLOG

IDLE_SECONDS: Final = 620
"""How long a connection may be idle: longer than load balancers keep theirs (Google's: 600 s, and no other by choice), since
one that is closed here just as a request comes loses it."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when it stops."""

    def __init__(self, app: Asgi, idle_seconds: float | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=max(1, round(idle_seconds or IDLE_SECONDS)),
                backlog=BACKLOG,
            )
        )

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class ServerThread:
    """A server on a thread and event loop of its own."""

    def __init__(self, app: Asgi, listener: socket.socket, name: str) -> None:
        self._server = Server(app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End open connections too: a scrape that is cut off is scraped again."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=5)
