"""HTTP over kubectl's proxy: to the API server, and through it to a Service or a pod."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from kubectl_slm.errors import CommandError, Exit


class Proxy:
    """A running `kubectl proxy`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, path: str, timeout: float = 20) -> bytes:
        """The whole body.

        Raises
        ------
        CommandError
        """
        with self._asked("GET", path, None, {}, timeout) as answer:
            return answer.read()

    @contextmanager
    def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float = 600
    ) -> Iterator[HTTPResponse]:
        """The answer as it comes; whoever leaves the context ends it.

        Raises
        ------
        CommandError
        """
        sent = {"Content-Type": "application/json", **headers}
        with self._asked("POST", path, json.dumps(body).encode(), sent, timeout) as answer:
            yield answer

    @contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> Iterator[HTTPResponse]:
        connection = HTTPConnection("localhost", timeout=timeout)
        try:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(timeout)
            connection.sock.connect(str(self._path))
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _refused(answer.status, answer.read())
            yield answer
        except TimeoutError:
            raise CommandError(
                f"nothing came for {timeout:.0f} seconds", "look at what the model does: `kubectl slm top`"
            ) from None
        except (HTTPException, OSError) as error:
            raise CommandError(
                f"the connection was lost ({error or type(error).__name__})",
                "ask again; `kubectl slm why NAME` says whether a pod has gone away",
                Exit.UNREACHABLE,
            ) from error
        finally:
            connection.close()


def _refused(status: int, body: bytes) -> CommandError:
    """What the API server, or whoever is behind it, says of a request that it refuses."""
    try:
        told = json.loads(body)
    except ValueError:
        told = {}
    inner = told.get("error") if isinstance(told, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else inner
    message = message or (told.get("message") if isinstance(told, dict) else None)
    words = str(message or body.decode(errors="replace").strip() or f"HTTP {status}")
    if isinstance(told, dict) and told.get("kind") == "Status":
        if status == 403:
            return CommandError(
                words,
                "ask for the right to `create` and `get` services/proxy and pods/proxy in this namespace",
                Exit.FORBIDDEN,
            )
        return CommandError(
            words,
            "`kubectl slm why NAME` says why no pod answers",
            Exit.NOT_FOUND if status == 404 else Exit.NO,
        )
    if status == 401:
        return CommandError(
            words, "the key in the Secret isn't the server's: name one with --key-file", Exit.FORBIDDEN
        )
    return CommandError(words, f"the model answered {status}: change the request, or try again")
