"""A Hugging Face hub on this machine: repositories with commits, its API, and a second server that has the bytes.

As at the real one, files that are kept as LFS come from that other server by addresses that are signed: here each is good
for one request. It sends an ETag of its own, another one each time, and no Authorization header may reach it.
"""

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

from tests.support.web import PIECE, QuietServer

Headers = dict[str, str]


class HubAsked(NamedTuple):
    server: str
    """`hub` or `cdn`."""
    path: str
    range: str | None
    authorization: str | None


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes = b""


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


class Hub:
    """`readers`: tokens that may read what is private or gated; `members`: tokens that are good for nothing else."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[HubAsked] = []
        self.connections = 0
        """How many were made, to either server."""
        self.readers = {"hf_reader"}
        self.members = {"hf_member"}
        self.page = 1000
        self.says_headers = True
        """Mirrors drop what isn't HTTP's own."""
        self.has_api = True
        self.has_tree = True
        self.redirects = True
        """Mirrors send the bytes themselves."""
        self.redirect_headers: Headers = {}
        """Sent besides with every redirect."""
        self.cut_after: int | None = None
        """Answers with bytes break off after so many."""
        self.before: Callable[[HubAsked], None] = lambda _: None
        """Called before each answer."""
        self._signatures: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self.lock = threading.Lock()
        self._hub = _serve(self, "hub", self._answer)
        self._cdn = _serve(self, "cdn", self._answer_of_cdn)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._cdn.server_address[1]}"

    def publish(self, repository: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Make a commit of exactly these files; answer its name."""
        known = self.repositories.setdefault(repository, Repository())
        commit = hashlib.sha1(f"{repository} {next(self._numbers)}".encode()).hexdigest()
        known.commits[commit] = dict(files)
        known.refs[branch] = commit
        return commit

    def close(self) -> None:
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def remember(self, asked: HubAsked) -> None:
        with self.lock:
            self.asked.append(asked)
        self.before(asked)

    def _answer(self, asked: HubAsked) -> Answer:
        path = urlsplit(asked.path).path
        api = re.fullmatch(
            r"/api/models/(?P<repository>[^/]+/[^/]+)(/(?P<what>revision|tree)/(?P<revision>[^/]+)(/(?P<folder>.+))?)?",
            path,
        )
        file = re.fullmatch(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", path)
        match = api or file
        if match is None or (api and not (self.has_tree if api["what"] == "tree" else self.has_api)):
            return Answer(404, {"Content-Type": "text/html"}, b"<html>nothing here</html>")
        name = match["repository"]
        repository = self.repositories.get(name)
        refused = self._refusal(repository, asked.authorization, is_file=api is None)
        if refused is not None or repository is None:
            return refused or _error(404, "RepoNotFound", "Repository not found")
        revision = unquote(match["revision"] or "main")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._said(_error(404, "RevisionNotFound", f"Invalid rev id: {revision}"))
        files = repository.commits[commit]
        if file:
            return self._said(self._file(unquote(file["path"]), files, commit, asked.range))
        assert api is not None
        if api["what"] == "tree":
            return self._tree(asked.path, files, unquote(api["folder"] or ""))
        return _json(
            {
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "tags": ["gguf"],
                "siblings": [{"rfilename": each} for each in files],
            }
        )

    def _refusal(
        self, repository: Repository | None, authorization: str | None, *, is_file: bool
    ) -> Answer | None:
        token = None if authorization is None else authorization.removeprefix("Bearer ")
        if token is not None and token not in self.readers | self.members:
            return self._said(_error(401, None, "Invalid credentials in Authorization header"))
        reads = token in self.readers
        if repository is None or (repository.private and not reads):
            return self._said(_error(401 if token is None else 404, "RepoNotFound", "Repository not found"))
        if is_file and repository.gated and not reads:
            return self._said(_error(401 if token is None else 403, "GatedRepo", "Access is restricted"))
        return None

    def _file(self, path: str, files: dict[str, bytes], commit: str, asked_range: str | None) -> Answer:
        if path not in files:
            return _error(404, "EntryNotFound", "Entry not found")
        data, is_lfs = files[path], path.endswith(".gguf")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_blob(_pointer(data) if is_lfs else data)}"'}
        if is_lfs:
            sha256 = hashlib.sha256(data).hexdigest()
            headers |= {
                "X-Linked-ETag": f'"{sha256}"',
                "X-Linked-Size": str(len(data)),
                "X-Xet-Hash": sha256[::-1],
                "Link": f'<{self.endpoint}/api/xet-read-token/{commit}>; rel="xet-auth"',
            }
        if is_lfs and self.redirects:
            signature = f"{next(self._numbers)}"
            self._signatures[signature] = data
            location = f"{self.cdn}/{hashlib.sha256(data).hexdigest()}?signature={signature}"
            headers |= {"Location": location, **self.redirect_headers}
            return Answer(302, headers, b"Found. Redirecting")
        return _bytes(data, headers, asked_range)

    def _tree(self, url: str, files: dict[str, bytes], folder: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        recursive = query.get("recursive", "").lower() == "true"
        entries = [each for each in _entries(files, folder) if recursive or "/" not in _below(each, folder)]
        at = int(query.get("cursor", "0"))
        headers = {}
        if at + self.page < len(entries):
            path = urlsplit(url).path
            following = f"{self.endpoint}{path}?recursive={recursive}&cursor={at + self.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        return _json(entries[at : at + self.page], headers)

    def _said(self, answer: Answer) -> Answer:
        """As a mirror hands it on, where this is one."""
        if self.says_headers:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith(("X-", "Link"))}
        return answer._replace(headers=kept)

    def _answer_of_cdn(self, asked: HubAsked) -> Answer:
        if asked.authorization is not None:
            return Answer(400, {}, b"<Error><Code>InvalidArgument</Code></Error>")
        signature = parse_qs(urlsplit(asked.path).query).get("signature", [""])[0]
        data = self._signatures.pop(signature, None)
        if data is None:
            return Answer(
                403, {}, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            )
        return _bytes(data, {"ETag": f'"{next(self._numbers)}"'}, asked.range)


def _entries(files: Mapping[str, bytes], folder: str) -> list[dict[str, object]]:
    """Folders and files, as the API lists them."""
    entries: dict[str, dict[str, object]] = {}
    for path, data in sorted(files.items()):
        if folder and not path.startswith(folder + "/"):
            continue
        for end in (at for at, letter in enumerate(path) if letter == "/" and at > len(folder)):
            entries[path[:end]] = {
                "type": "directory",
                "oid": _git_blob(path[:end].encode()),
                "size": 0,
                "path": path[:end],
            }
        entries[path] = {"type": "file", "oid": _git_blob(data), "size": len(data), "path": path}
        if path.endswith(".gguf"):
            lfs = {
                "oid": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "pointerSize": len(_pointer(data)),
            }
            entries[path] |= {"oid": _git_blob(_pointer(data)), "lfs": lfs, "xetHash": lfs["oid"]}
    return list(entries.values())


def _below(entry: dict[str, object], folder: str) -> str:
    return str(entry["path"])[len(folder) + 1 if folder else 0 :]


def _pointer(data: bytes) -> bytes:
    """What git itself keeps of a file that is kept as LFS."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n"
    ).encode()


def _git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _json(document: object, headers: Headers | None = None) -> Answer:
    return Answer(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())


def _error(status: int, code: str | None, message: str) -> Answer:
    coded = {"X-Error-Code": code} if code else {}
    return Answer(status, {"X-Error-Message": message, **coded}, json.dumps({"error": message}).encode())


def _bytes(data: bytes, headers: Headers, asked_range: str | None) -> Answer:
    headers = {"Accept-Ranges": "bytes", **headers}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked_range or "")
    if match is None:
        return Answer(200, headers, data)
    first, last = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
    if first > last:
        return Answer(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
    return Answer(
        206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1]
    )


def _serve(hub: Hub, name: str, answer: Callable[[HubAsked], Answer]) -> QuietServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        disable_nagle_algorithm = True

        @override
        def setup(self) -> None:
            super().setup()
            with hub.lock:
                hub.connections += 1

        def do_GET(self) -> None:
            asked = HubAsked(name, self.path, self.headers.get("Range"), self.headers.get("Authorization"))
            hub.remember(asked)
            status, headers, body = answer(asked)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            is_cut = hub.cut_after is not None and status in {200, 206} and len(body) > hub.cut_after
            body = body[: hub.cut_after] if is_cut else body
            for at in range(0, len(body), PIECE):
                self.wfile.write(body[at : at + PIECE])
            self.close_connection = self.close_connection or is_cut

        def do_HEAD(self) -> None:
            self.do_GET()

        @override
        def log_message(self, *_: object) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()
