"""A real S3 server on loopback: the Versity gateway over folders, with users and with buckets that keep versions."""

import datetime as dt
import hashlib
import hmac
import subprocess
import time
from pathlib import Path

import httpx2
import obstore
from obstore.store import S3Store

from tests.cluster import tools
from tests.cluster.commands import run
from tests.support.ports import free_port

ROOT, SECRET = "root", "root-secret"
_START_SECONDS = 30
_VERSIONED = (
    '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status>'
    "</VersioningConfiguration>"
)


class S3Server:
    def __init__(self, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        """`tls`: certificate and key; None: plain HTTP."""
        self._program = tools.versitygw.path()
        self._folder = folder
        self._tls = tls
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("data", "versions", "users"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        secured = ["--cert", self._tls[0], "--key", self._tls[1]] if self._tls else []
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *("--port", f"127.0.0.1:{self._port}", "--access", ROOT, "--secret", SECRET),
                    *("--keep-alive", "--iam-dir", self._folder / "users", *secured),
                    *("posix", "--versioning-dir", self._folder / "versions", self._folder / "data"),
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                httpx2.get(self.url, verify=False)
            except httpx2.TransportError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self._folder / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def bucket(self, name: str, *, versioned: bool = False) -> None:
        self._ask("PUT", f"/{name}", "", b"")
        if versioned:
            self._ask("PUT", f"/{name}", "versioning=", _VERSIONED.encode())

    def put(self, bucket: str, key: str, data: bytes) -> None:
        obstore.put(self._store(bucket), key, data)

    def delete(self, bucket: str, key: str) -> None:
        obstore.delete(self._store(bucket), key)

    def user(self, name: str, secret: str) -> None:
        """Let somebody log in who may read nothing."""
        login = ["--access", ROOT, "--secret", SECRET, "--endpoint-url", self.url, "--allow-insecure"]
        user = ["--access", name, "--secret", secret, "--role", "user"]
        run([self._program, "admin", *login, "create-user", *user])

    def _store(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            endpoint=self.url,
            access_key_id=ROOT,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "allow_invalid_certificates": True},
        )

    def _ask(self, method: str, path: str, query: str, body: bytes) -> None:
        """What the client library has no word for; signed as AWS describes it (Signature Version 4)."""
        now = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        hashed = hashlib.sha256(body).hexdigest()
        headers = {"host": self.url.partition("://")[2], "x-amz-content-sha256": hashed, "x-amz-date": now}
        names = ";".join(headers)
        lines = [
            method,
            path,
            query,
            *(f"{name}:{value}" for name, value in headers.items()),
            "",
            names,
            hashed,
        ]
        request = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = f"AWS4{SECRET}".encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}"
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={ROOT}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        url = f"{self.url}{path}{f'?{query}' if query else ''}"
        httpx2.request(method, url, headers=headers, content=body, verify=False).raise_for_status()
