"""What a Hugging Face hub, or a mirror of one, is asked, and what its answers mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from slm_runtime.errors import (
    RuntimeFailure,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
)
from slm_runtime.models.sources.address import origin, redacted
from slm_runtime.models.sources.http import HttpClient, bounded
from slm_runtime.models.sources.remote import MAX_PATH

MAX_JSON: Final = 4 << 20
MAX_PAGES: Final = 50
"""Of a list of files; the hub puts a thousand on each."""
MAX_LISTED: Final = MAX_PAGES * 1000
MAX_SAID: Final = 200
_COMMIT: Final = re.compile("[0-9a-f]{40}")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_T = TypeVar("_T")


class NoListing(SourceInvalid):
    """It doesn't say which files there are."""


class HubFile(NamedTuple):
    path: str
    size: int | None = None
    sha256: str | None = None


class Listing(NamedTuple):
    revision: str
    """The commit, where the hub says it; else what was asked for."""
    files: Sequence[HubFile]


class _Lfs(msgspec.Struct):
    oid: str


class _Entry(msgspec.Struct):
    path: str
    type: str
    size: int | None = None
    lfs: _Lfs | None = None


class _Sibling(msgspec.Struct):
    rfilename: str


class _Info(msgspec.Struct):
    sha: str | None = None
    siblings: list[_Sibling] = []


@dataclass(frozen=True)
class Hub:
    """One repository of a hub, at one revision."""

    endpoint: str
    asked: str
    """A URL of the server that really is asked in place of the endpoint."""
    repository: str
    revision: str
    pinned: bool
    """Whether the revision is what was resolved earlier."""

    def file_url(self, path: str, revision: str) -> str:
        return f"{self.endpoint}/{self.repository}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def said(self, response: httpx2.Response, header: str) -> str | None:
        """What the hub itself said of a file, on the way to its bytes."""
        own = [each.headers for each in (*response.history, response) if self._is_own(each)]
        return next((each[header] for each in reversed(own) if header in each), None)

    def said_commit(self, response: httpx2.Response) -> str | None:
        return _matching(_COMMIT, self.said(response, "X-Repo-Commit"))

    def said_sha256(self, response: httpx2.Response) -> str | None:
        """Of a file that is kept as LFS the ETag of what the answer links to, or Artifactory's word in its place."""
        said = self.said(response, "X-Linked-ETag") or self.said(response, "X-Checksum-Sha256") or ""
        return _matching(_SHA256, said.removeprefix("W/").strip('"'))

    def said_size(self, response: httpx2.Response) -> int | None:
        size = self.said(response, "X-Linked-Size") or ""
        return int(size) if re.fullmatch("[0-9]{1,15}", size) else None

    def refusal(self, response: httpx2.Response) -> RuntimeFailure | None:
        """Why there is no answer. Statuses don't tell: a repository that isn't there may answer 401."""
        where = redacted(self.endpoint)
        match response.headers.get("X-Error-Code"):
            case "GatedRepo":
                return SourceUnauthorized(
                    f"{self.repository} is gated: only accounts that accepted its licence may read it.",
                    f"Accept it on {where}/{self.repository}, and name a Secret with a `token` of that account, which may"
                    " read gated repositories, in spec.model.credentials.secretRef.",
                )
            case "RepoNotFound":
                return SourceNotFound(
                    f"There is no repository {self.repository} on {where}, or it is private.",
                    "Correct spec.model.source, or name a Secret with a `token` that may read it in"
                    " spec.model.credentials.secretRef.",
                )
            case "RevisionNotFound" if self.pinned:
                return SourceDrifted(
                    f"{self.repository} has no commit {self.revision} any more: its history was written anew."
                )
            case "RevisionNotFound":
                return SourceNotFound(
                    f"{self.repository} has no branch, tag or commit {self.revision}.",
                    "Correct what stands behind the @ in spec.model.source.",
                )
            case _:
                return self._uncoded_refusal(response)

    def listing(self, client: HttpClient) -> Listing:
        """Which files there are.

        Raises
        ------
        NoListing
            It is a mirror that knows no such question.
        SourceError
        """
        info, _ = self._json(client, self._api("revision", self.revision), _Info)
        revision = _matching(_COMMIT, info.sha) or self.revision
        try:
            return Listing(revision, self._tree(client, revision))
        except NoListing:
            # Mirrors that have no tree still know what the hub's older clients asked for.
            if not info.siblings:
                raise
            return Listing(revision, [HubFile(each.rfilename) for each in info.siblings])

    def _tree(self, client: HttpClient, revision: str) -> list[HubFile]:
        url, query = self._api("tree", revision), "recursive=true"
        files: list[HubFile] = []
        for _ in range(MAX_PAGES):
            page, following = self._json(client, f"{url}?{query}", list[_Entry])
            files += (
                HubFile(each.path, each.size, _matching(_SHA256, each.lfs.oid if each.lfs else None))
                for each in page
                if each.type == "file" and len(each.path) <= MAX_PATH
            )
            if following is None:
                return files
            if len(files) > MAX_LISTED:
                break
            # A mirror may hand on the hub's own address: all that counts of it is where to go on.
            query = following.partition("?")[2]
        raise SourceInvalid(
            f"{self.repository} lists {len(files):,} files, and that isn't the end.",
            f"Name the file: hf://{self.repository}/file.gguf.",
        )

    def _json(self, client: HttpClient, url: str, kind: type[_T]) -> tuple[_T, str | None]:
        """Read a document, and the address of the page that follows it."""
        with client.get(url, {"Accept": "application/json"}) as response:
            body = bounded(response, MAX_JSON)
            following = response.links.get("next", {}).get("url")
        try:
            # Not by pydantic: of a hostile document it would make a gigabyte of complaints.
            return msgspec.json.decode(body, type=kind), following
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise self._no_listing() from None

    def _api(self, what: str, revision: str) -> str:
        return f"{self.endpoint}/api/models/{self.repository}/{what}/{quote(revision, safe='')}"

    def _no_listing(self) -> NoListing:
        return NoListing(
            f"{redacted(self.endpoint)} doesn't say which files {self.repository} has at {self.revision}.",
            f"Name the file: hf://{self.repository}/file.gguf.",
        )

    def _uncoded_refusal(self, response: httpx2.Response) -> RuntimeFailure | None:
        status, own = response.status_code, self._is_own(response)
        if status in {400, 401, 403} and not own:
            return SourceUnreachable(
                f"{redacted(str(response.request.url))}, to which {redacted(self.endpoint)} redirects, answers"
                f" {status}: the address has expired, or isn't let through."
            )
        if status in {401, 403}:
            said = response.headers.get("X-Error-Message", "")[:MAX_SAID]
            return SourceUnauthorized(
                f"{redacted(self.endpoint)} answers {status} for {self.repository}{f' ({said!r})' if said else ''}: it isn't"
                " there, or wants a token that may read it."
            )
        if status == 429:
            reset = re.search(r"\bt=([0-9]{1,5})\b", response.headers.get("RateLimit", ""))
            return reset and SourceUnreachable(
                f"{redacted(self.endpoint)} was asked too often from this network.",
                "It is tried again by itself; with a `token` in spec.model.credentials.secretRef more is allowed.",
                retry_after=float(reset[1]),
            )
        if status == 404 and own and "/api/models/" in response.request.url.path:
            return self._no_listing()
        return None

    def _is_own(self, response: httpx2.Response) -> bool:
        """Whether it is the hub's word, not that of a server which it redirected to."""
        return origin(str(response.request.url)) == origin(self.asked)


def is_commit(revision: str) -> bool:
    return _COMMIT.fullmatch(revision) is not None


def _matching(pattern: "re.Pattern[str]", text: str | None) -> str | None:
    return text if text is not None and pattern.fullmatch(text) else None
