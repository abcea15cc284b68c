"""A real registry on loopback: Docker's own, as Debian packages it, with each of its ways to know who asks."""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from typing_extensions import override

from tests.cluster import cache
from tests.cluster.commands import run
from tests.support.ports import free_port
from tests.support.registry import basic

PACKAGE = "docker-registry"
USER, PASSWORD = "me", "secret"
HTPASSWD = "me:$2b$04$SgR9BsTbXJiUiC7SfXKOIOPmCDGRsg.4X7VyFWFzgdf3ZRs4Xc5oe\n"
"""The user and the password, as bcrypt has it."""
_START_SECONDS = 30
_LEEWAY_SECONDS = 60
"""So long after its end the registry still takes a token."""


def obstacle() -> str | None:
    """Why there is none here; None where there is."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return "its package is Debian's, and this machine isn't"
    return None


def program() -> Path:
    """The registry's program, from Debian's package; nothing is installed."""

    def unpack(folder: Path) -> None:
        run(["apt-get", "download", PACKAGE], cwd=folder)
        (package,) = folder.glob("*.deb")
        run(["dpkg", "-x", package, folder])
        package.unlink()

    folder = cache.built("tools", PACKAGE, {"package": PACKAGE}, unpack, note="seconds, once", gib=0.1)
    return folder / "usr/bin/docker-registry"


@contextmanager
def docker_registry(
    folder: Path, *, auth: Mapping[str, object] | None = None, tls: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Run a registry; its host and port. `tls`: certificate and key; None: plain HTTP."""
    host = f"127.0.0.1:{free_port()}"
    http: dict[str, object] = {"addr": host, "secret": "s"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}}
    config = {"version": 0.1, "storage": storage, "http": http, **({"auth": dict(auth)} if auth else {})}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program(), "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        _wait(process, f"{'https' if tls else 'http'}://{host}/", folder / "registry.log")
        yield host
    finally:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx2.get(url, verify=False, trust_env=False)
        except httpx2.TransportError:
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return


def passwords(folder: Path) -> dict[str, object]:
    """For `auth`: a password at every request."""
    (folder / "htpasswd").write_text(HTPASSWD)
    return {"htpasswd": {"realm": "the registry", "path": str(folder / "htpasswd")}}


@dataclass
class TokenServer:
    """Gives whoever has the password tokens for what is asked, signed with a key that the registry trusts."""

    folder: Path
    lifetime: float = 300
    """Seconds."""
    given: list[str] = field(default_factory=list)
    """The scopes."""
    last: str = ""

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .sign(self._key, hashes.SHA256())
        )
        (self.folder / "tokens.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._certificate = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def auth(self) -> dict[str, object]:
        """For the registry's `auth`."""
        realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        bundle = str(self.folder / "tokens.crt")
        return {"token": {"realm": realm, "service": "registry", "issuer": "tests", "rootcertbundle": bundle}}

    def token(self, scope: str) -> str:
        kind, name, actions = scope.split(":", 2)
        now = time.time()
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": "registry",
            "nbf": int(now - 600),
            "iat": int(now - 600),
            "exp": int(now + self.lifetime - _LEEWAY_SECONDS),
            "jti": str(len(self.given)),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._certificate]}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        numbers = (number.to_bytes(32, "big") for number in decode_dss_signature(signature))
        return f"{signed}.{_encoded(b''.join(numbers))}"

    def _handler(tokens) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Authorization") != basic(USER, PASSWORD):
                    self.send_response(401)
                    self.end_headers()
                    return
                (scope,) = parse_qs(urlsplit(self.path).query)["scope"]
                tokens.last = tokens.token(scope)
                tokens.given.append(scope)
                body = json.dumps({"token": tokens.last}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
