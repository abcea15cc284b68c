"""A small registry that behaves as the big ones do, where they differ: who may ask, and where blobs come from."""

import base64
import hashlib
import io
import itertools
import json
import re
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCTETS = "application/octet-stream"
TITLE = "org.opencontainers.image.title"
FILE_PATH = "org.cncf.model.filepath"
Descriptor = dict[str, Any]


class Asked(NamedTuple):
    server: Literal["registry", "tokens", "store"]
    path: str
    range: str | None
    authorization: str | None


@dataclass(frozen=True)
class Token:
    scope: str
    expired: threading.Event


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}
    ranges: bool = False
    endless: bool = False


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Registry:
    """Three servers: the registry, the one that gives tokens, the one that has the blobs. Tests change it as it serves."""

    def __init__(self) -> None:
        self.login: Literal["none", "basic", "token"] = "none"
        self.users: dict[str, str] = {}
        """With passwords; where there are none tokens are for everybody."""
        self.realm: str | None = None
        """Where it says that tokens are to be had; None: at its own server for them."""
        self.redirects = False
        """Blobs are at another server, under addresses that are good once."""
        self.ranges = True
        self.instead: dict[str, Answer] = {}
        """What is answered under a path, whatever there is."""
        self.asked: list[Asked] = []
        self._manifests: dict[str, tuple[str, bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._tokens: dict[str, Token] = {}
        self._signatures: set[str] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._servers = {
            name: _Quiet(("127.0.0.1", 0), self._handler(name)) for name in ("registry", "tokens", "store")
        }
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in self._servers.values()
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    @property
    def host(self) -> str:
        return self._host("registry")

    @property
    def token_url(self) -> str:
        return f"http://{self._host('tokens')}/token"

    def blob(
        self, data: bytes, media_type: str = OCTETS, annotations: Mapping[str, str] | None = None
    ) -> Descriptor:
        """Publish bytes; answer what a manifest says of them."""
        digest = _digest(data)
        self._blobs[digest] = data
        described = {"mediaType": media_type, "digest": digest, "size": len(data)}
        return {**described, "annotations": dict(annotations)} if annotations else described

    def push(self, name: str, *layers: Descriptor, media_type: str = MANIFEST, **more: Any) -> str:
        """Publish a manifest under `repository:tag`; answer its digest."""
        return self.put(
            name, {"schemaVersion": 2, "mediaType": media_type, "layers": layers, **more}, media_type
        )

    def push_index(self, name: str, *manifests: Descriptor) -> str:
        return self.put(name, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)

    def put(self, name: str, document: object, media_type: str = MANIFEST) -> str:
        repository, _, tag = name.partition(":")
        content = json.dumps(document).encode()
        digest = _digest(content)
        for reference in (tag, digest):
            self._manifests[f"{repository}/{reference}"] = (media_type, content)
        return digest

    def describe(self, name: str, **more: Any) -> Descriptor:
        """What an index says of a manifest."""
        repository, _, tag = name.partition(":")
        media_type, content = self._manifests[f"{repository}/{tag}"]
        return {"mediaType": media_type, "digest": _digest(content), "size": len(content), **more}

    def manifest(self, name: str) -> bytes:
        repository, _, reference = name.partition(":")
        return self._manifests[f"{repository}/{reference}"][1]

    def delete(self, repository: str, reference: str) -> None:
        del self._manifests[f"{repository}/{reference}"]

    def spoil(self, digest: str, data: bytes) -> None:
        """Have other bytes under a digest than those that it is of."""
        self._blobs[digest] = data

    def expire_tokens(self) -> None:
        for token in self._tokens.values():
            token.expired.set()

    def _host(self, server: str) -> str:
        return f"127.0.0.1:{self._servers[server].server_address[1]}"

    def _answer(self, asked: Asked, accept: str) -> Answer:
        path = urlsplit(asked.path).path
        if path in self.instead:
            return self.instead[path]
        if asked.server == "tokens":
            return self._give_token(asked)
        if asked.server == "store":
            return self._stored(asked)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if match is None:
            return Answer(404)
        repository, kind, reference = match.groups()
        if not self._may(asked, repository):
            return self._challenge(repository)
        if kind == "manifests":
            media_type, content = self._manifests.get(f"{repository}/{reference}", ("", b""))
            if not content or media_type not in accept:
                return _error(404, "MANIFEST_UNKNOWN")
            return Answer(
                200, content, {"Content-Type": media_type, "Docker-Content-Digest": _digest(content)}
            )
        if reference not in self._blobs:
            return _error(404, "BLOB_UNKNOWN")
        if not self.redirects:
            return Answer(200, self._blobs[reference], ranges=self.ranges)
        signature = str(next(self._numbers))
        self._signatures.add(signature)
        return Answer(
            307, headers={"Location": f"http://{self._host('store')}/{reference}?signature={signature}"}
        )

    def _may(self, asked: Asked, repository: str) -> bool:
        if self.login == "none":
            return True
        if self.login == "basic":
            return asked.authorization in {basic(*each) for each in self.users.items()}
        token = self._tokens.get((asked.authorization or "").removeprefix("Bearer "))
        return (
            token is not None
            and token.scope == f"repository:{repository}:pull"
            and not token.expired.is_set()
        )

    def _challenge(self, repository: str) -> Answer:
        if self.login == "basic":
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="a registry"'})
        realm = self.token_url if self.realm is None else self.realm
        said = f'Bearer realm="{realm}",service="the registry",scope="repository:{repository}:pull"'
        return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": said})

    def _give_token(self, asked: Asked) -> Answer:
        if self.users and asked.authorization not in {basic(*each) for each in self.users.items()}:
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="tokens"'})
        query = parse_qs(urlsplit(asked.path).query)
        if query.get("service") != ["the registry"]:
            return _error(400, "DENIED")
        name = f"token-{next(self._numbers)}"
        self._tokens[name] = Token(query["scope"][0], threading.Event())
        return Answer(200, json.dumps({"token": name, "expires_in": 60}).encode())

    def _stored(self, asked: Asked) -> Answer:
        """As object stores do: an address is signed, and whoever brings a header besides is refused."""
        parts = urlsplit(asked.path)
        signature = parse_qs(parts.query).get("signature", [""])[0]
        if asked.authorization is not None or signature not in self._signatures:
            return Answer(400, b"Only one auth mechanism allowed")
        self._signatures.remove(signature)
        # Each of a store's caches says something else of the same bytes.
        return Answer(200, self._blobs[parts.path[1:]], {"ETag": f'"{signature}"'}, ranges=self.ranges)

    def _handler(registry, server: Any) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                asked = Asked(server, self.path, self.headers.get("Range"), self.headers.get("Authorization"))
                with registry._lock:
                    registry.asked.append(asked)
                    answer = registry._answer(asked, self.headers.get("Accept", ""))
                self._send(answer, asked.range)

            def _send(self, answer: Answer, asked_range: str | None) -> None:
                status, body, headers = answer.status, answer.body, dict(answer.headers)
                match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked_range or "")
                if match and answer.ranges:
                    first, last = int(match[1]), min(int(match[2] or len(body) - 1), len(body) - 1)
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                    status, body = 206, body[first : last + 1]
                if not answer.endless:
                    headers["Content-Length"] = str(len(body))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                while answer.endless:
                    self.wfile.write(bytes(1 << 16))

            @override
            def log_message(self, *_: object) -> None:
                pass

        return Handler


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def tar(*files: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """The bytes of an archive with these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps({"errors": [{"code": code}]}).encode(), headers or {})


@contextmanager
def registry_server() -> Iterator[Registry]:
    server = Registry()
    try:
        yield server
    finally:
        server.close()
