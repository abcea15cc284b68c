"""HTTP as sources need it: typed errors, bounded redirects that carry no credentials away, ranges of one version."""

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import urljoin

import httpcore2
import httpx2

from slm_runtime.errors import (
    InvalidModel,
    RuntimeFailure,
    SourceChanged,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
    SourceUntrusted,
)
from slm_runtime.models.sources.address import Origin, check_encrypted, check_public, origin, redacted
from slm_runtime.models.sources.route import Route

MAX_REDIRECTS: Final = 5
TIMEOUT: Final = httpx2.Timeout(30, connect=10, pool=None)
CONNECTIONS: Final = 8
PROBE: Final = {"Range": "bytes=0-0"}
"""Asks for the first byte alone."""
httpcore2.HTTP11Connection.READ_NUM_BYTES = 1 << 17
"""Bytes that are taken of a socket at once. The library's own half of that costs a fetch a tenth more CPU, in all that is
done for each piece; twice as many would be 8 MiB of memory, in the copies that it makes of them."""
Refusal = Callable[[httpx2.Response], RuntimeFailure | None]
"""What an answer that is none means in the dialect of the source's servers; None: no more than its status."""
Identify = Callable[[httpx2.Response], str | None]
"""The version of the file that an answer is of."""


class Login(Protocol):
    """Answers a server that wants to know who asks."""

    def __call__(self, refused: httpx2.Response, /) -> str | None:
        """Return the Authorization header to ask with once more; None: there is no other."""


class HttpClient:
    """Thread-safe. Every address is held against the site's route before it is asked, those that redirects lead to as well.

    `authorizations`: the header that each origin gets; `plain_hosts`: may be asked without TLS; `refusal`: what an answer
    that is none means.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        route: Route,
        authorizations: Mapping[Origin, str] | None = None,
        login: Login | None = None,
        plain_hosts: frozenset[str] = frozenset(),
        refusal: Refusal = lambda _: None,
        timeout: httpx2.Timeout = TIMEOUT,
    ) -> None:
        self._client = httpx2.Client(
            verify=tls,
            timeout=timeout,
            limits=httpx2.Limits(max_keepalive_connections=CONNECTIONS),
            headers={"Accept-Encoding": "identity", "User-Agent": "slm-runtime"},
        )
        self._authorizations = dict(authorizations or {})
        self._login = login
        self._route = route
        self._refusal = refusal
        self.plain_hosts = plain_hosts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response]:
        """Ask for a URL, redirects followed: those are the answer's `history`. The body is not read yet.

        Raises
        ------
        RuntimeFailure
            Every failure, also one while the body is read, is a typed one.
        """
        with _typed(url):
            url = self._route(url)
            history: list[httpx2.Response] = []
            for _ in range(MAX_REDIRECTS + 1):
                response = self._ask(url, headers or {})
                try:
                    location = response.headers.get("Location") if response.is_redirect else None
                    if location is None:
                        response.history = history
                        self._check(response, url)
                        yield response
                        return
                    history.append(response)
                    _finish(response)
                finally:
                    response.close()
                url = self._route(urljoin(url, location))
            raise SourceInvalid(f"{redacted(url)} redirects more than {MAX_REDIRECTS} times.")

    def _check(self, response: httpx2.Response, url: str) -> None:
        refused = None if response.is_success else self._refusal(response)
        if refused is not None:
            raise refused
        _check_status(response, url)

    def _ask(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        response = self._client.send(self._request(url, headers), stream=True)
        if response.status_code != httpx2.codes.UNAUTHORIZED or self._login is None:
            return response
        try:
            authorization = self._login(response)
        except BaseException:
            response.close()
            raise
        if authorization is None:
            return response
        response.close()
        self._authorizations[origin(url)] = authorization
        return self._client.send(self._request(url, headers), stream=True)

    def _request(self, url: str, headers: Mapping[str, str]) -> httpx2.Request:
        check_encrypted(url, self.plain_hosts)
        self._route.check(url)
        asked = origin(url)
        check_public(asked.host)
        authorization = self._authorizations.get(asked)
        extra = {"Authorization": authorization} if authorization else {}
        request = self._client.build_request("GET", url, headers={**headers, **extra})
        request.extensions["trace"] = _PeerCheck(request.url.raw_host.decode())
        return request


class _PeerCheck:
    """Sees where a new connection really leads, before anything is sent: a name may have any address.

    Behind a proxy the peer is the proxy, which the site trusts.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._direct = False

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._direct = info["host"] == self._host
        elif event == "connection.connect_tcp.complete" and self._direct:
            stream = info["return_value"]
            try:
                check_public(stream.get_extra_info("server_addr")[0])
            except RuntimeFailure:
                stream.close()
                raise


@dataclass(frozen=True)
class HttpBlob:
    """A file on a web server, of the version that the probe saw."""

    url: str
    client: HttpClient = field(repr=False)
    size: int | None
    version: str | None
    ranged: bool
    identify: Identify = field(repr=False)

    @classmethod
    def probe(cls, client: HttpClient, url: str) -> "HttpBlob":
        """Ask for the first byte alone: that tells size, version, and whether the server knows ranges."""
        with client.get(url, PROBE) as response:
            return cls.seen(client, url, response)

    @classmethod
    def seen(
        cls, client: HttpClient, url: str, response: httpx2.Response, identify: Identify | None = None
    ) -> "HttpBlob":
        """Make one of the answer to a probe. `identify`: None where the answer's own headers tell its version."""
        if response.status_code == httpx2.codes.PARTIAL_CONTENT:
            _, _, size = _content_range(response, url)
            _finish(response)
        else:
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdigit() else None
        if size == 0:
            raise InvalidModel(f"{redacted(url)} is empty.")
        ranged = response.status_code == httpx2.codes.PARTIAL_CONTENT and size is not None
        identify = identify or _version
        return cls(url, client, size, identify(response), ranged, identify)

    @property
    def where(self) -> str:
        return redacted(self.url)

    @contextmanager
    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Iterator[bytes]]:
        whole = start == 0 and stop in {None, self.size}
        if not self.ranged and not whole:
            raise SourceInvalid(f"{self.where} can't be read in part.")
        last = "" if stop is None else stop - 1
        with self.client.get(self.url, {} if whole else {"Range": f"bytes={start}-{last}"}) as response:
            self._check_same(response, start, whole=whole)
            yield response.iter_raw()

    def _check_same(self, response: httpx2.Response, start: int, *, whole: bool) -> None:
        changed = SourceChanged(f"{self.where} changed while it was fetched.")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise SourceInvalid(f"{self.where} is sent compressed, though that wasn't asked for.")
        if self.identify(response) != self.version:
            raise changed
        if whole:
            length = response.headers.get("Content-Length")
            if length is not None and self.size is not None and length != str(self.size):
                raise changed
        elif response.status_code != httpx2.codes.PARTIAL_CONTENT:
            raise changed
        else:
            first, _, size = _content_range(response, self.url)
            if first != start or size != self.size:
                raise changed


def _finish(response: httpx2.Response) -> None:
    """Read a small body to its end: that leaves a connection which is of use again."""
    if re.fullmatch("[0-9]{1,4}", response.headers.get("Content-Length", "")):
        for _ in response.iter_raw():
            pass


def bounded(response: httpx2.Response, limit: int) -> bytes:
    """Read a body that fits in memory.

    Raises
    ------
    SourceInvalid
        It is longer than `limit`.
    """
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit:
            raise SourceInvalid(
                f"{redacted(str(response.url))} is longer than the {limit >> 20} MiB that are read."
            )
    return bytes(body)


def _version(response: httpx2.Response) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _content_range(response: httpx2.Response, url: str) -> tuple[int, int, int | None]:
    """First byte, last byte, size of the whole."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", text)
    if match is None:
        raise SourceInvalid(
            f"{redacted(url)} answers with a Content-Range that makes no sense: {text[:80]!r}."
        )
    first, last, size = match.groups()
    return int(first), int(last), None if size == "*" else int(size)


def _check_status(response: httpx2.Response, url: str) -> None:
    status = response.status_code
    if status in {httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT}:
        return
    said = f"{redacted(url)} answers {status} {response.reason_phrase}".rstrip() + "."
    if status in {401, 403}:
        raise SourceUnauthorized(said)
    if status in {404, 410}:
        raise SourceNotFound(said)
    if status == 416:
        if response.headers.get("Content-Range") == "bytes */0":
            raise InvalidModel(f"{redacted(url)} is empty.")
        raise SourceChanged(f"{redacted(url)} is shorter than it was.")
    if status in {408, 425, 429} or status >= 500:
        raise SourceUnreachable(said, retry_after=_retry_after(response))
    raise SourceInvalid(said)


def _retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(response.headers["Date"])
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


@contextmanager
def _typed(url: str) -> Iterator[None]:
    """Turn what the HTTP library raises into what people can act on."""
    try:
        yield
    except RuntimeFailure:
        raise
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise SourceInvalid(f"{redacted(url)} can't be asked for: {error}.") from error
    except httpx2.TimeoutException as error:
        kind = "a connection" if isinstance(error, httpx2.ConnectTimeout) else "an answer"
        raise SourceUnreachable(f"{redacted(url)}: waited too long for {kind}.") from error
    except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError) as error:
        raise _connection_error(url, error) from error


def _connection_error(url: str, error: Exception) -> RuntimeFailure:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceUntrusted(
                f"The certificate of {redacted(url)} isn't trusted: {cause.verify_message}."
            )
        if isinstance(cause, socket.gaierror):
            return SourceUnreachable(f"{redacted(url)}: no address is known for {origin(url).host}.")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ProxyError):
        return SourceUnreachable(f"{redacted(url)}: the proxy refuses: {error}.")
    if isinstance(error, httpx2.ConnectError):
        return SourceUnreachable(f"{redacted(url)}: no connection: {error}.")
    return SourceUnreachable(f"{redacted(url)} was cut off: {error}.")
