"""A Python index made of files on a test's web server, in both of its dialects, and wheels to put into it."""

import hashlib
import io
import json
import zipfile
from typing import Literal

from tests.support.web import WebServer


def wheel(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The bytes of a wheel with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("model_pkg/__init__.py", "")
        for name, data in members:
            archive.writestr(name, data)
        archive.writestr("model_pkg-1.0.dist-info/RECORD", "")
    return file.getvalue()


def publish(
    web: WebServer,
    data: bytes,
    *,
    package: str = "model-pkg",
    version: str = "1.0",
    dialect: Literal["html", "json"] = "json",
    sha256: str | None = None,
    ranges: bool = True,
    login: str | None = None,
    index: str = "simple",
) -> str:
    """Publish a wheel; answer the index's URL. `sha256`: what the index says; None: the truth; "": nothing."""
    file = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
    web.put(f"files/{file}", data, ranges=ranges, etag=f'"{hashlib.sha256(data).hexdigest()[:8]}"')
    said = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
    if dialect == "json":
        hashes = {"sha256": said} if said else {}
        page = {
            "meta": {"api-version": "1.0"},
            "name": package,
            "files": [
                {"filename": file, "url": f"../../files/{file}", "hashes": hashes},
                {"filename": "model_pkg-0.9.tar.gz", "url": "../../files/model_pkg-0.9.tar.gz", "hashes": {}},
            ],
        }
        body, kind = json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json"
    else:
        fragment = f"#sha256={said}" if said else ""
        body = f'<!DOCTYPE html><html><body><a href="../../files/{file}{fragment}">{file}</a></body></html>'.encode()
        kind = "text/html"
    web.put(f"{index}/{package}/", body, headers={"Content-Type": kind}, login=login)
    return web.url(f"{index}/")
