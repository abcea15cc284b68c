"""Source URIs: what they say, and the file that they name."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

from slm_contract.config import ModelConfig
from slm_operator.crd.schemes import KNOWN, SCHEMES


class SourceError(ValueError):
    """A source that can't be fetched from, however long one waits; the message says what to write."""


class Source(Protocol):
    @property
    def file_name(self) -> str:
        """What it names, for people."""


@dataclass(frozen=True)
class HttpsSource:
    """One file behind one URL."""

    authority: str
    path: str

    @property
    def file_name(self) -> str:
        return _last(unquote(self.path)) or self.authority


@dataclass(frozen=True)
class HubSource:
    """Files of a Hugging Face repository."""

    organization: str
    repository: str
    path: str | None = None
    revision: str | None = None

    @property
    def file_name(self) -> str:
        return self.repository if self.path is None else _last(self.path)


@dataclass(frozen=True)
class OllamaSource:
    place: str
    """Registry and namespace as they are written, with their slashes."""
    name: str
    tag: str | None = None

    @property
    def file_name(self) -> str:
        return self.name if self.tag is None else f"{self.name}:{self.tag}"


@dataclass(frozen=True)
class OciSource:
    """An artifact in a container registry, or one model in it."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    path: str | None = None

    @property
    def file_name(self) -> str:
        if self.path is not None:
            return _last(self.path)
        return _last(self.repository) + ("" if self.tag is None else f":{self.tag}")


@dataclass(frozen=True)
class ObjectSource:
    """One object of an object store."""

    bucket: str
    key: str

    @property
    def file_name(self) -> str:
        return _last(self.key)


@dataclass(frozen=True)
class ClaimSource:
    """A path on a PersistentVolumeClaim."""

    claim: str
    path: str
    """Empty: whatever model lies there."""

    @property
    def file_name(self) -> str:
        return _last(self.path) or self.claim


@dataclass(frozen=True)
class PypiSource:
    """One file inside one version of a Python package."""

    package: str
    version: str
    path: str

    @property
    def file_name(self) -> str:
        return _last(self.path)


@dataclass(frozen=True)
class CatalogSource:
    """A name that the operator's configuration knows a source for."""

    name: str

    @property
    def file_name(self) -> str:
        return self.name


_READ_AS: Final[Mapping[str, Callable[..., Source]]] = {
    "https": HttpsSource,
    "hf": HubSource,
    "ollama": OllamaSource,
    "oci": OciSource,
    "s3": ObjectSource,
    "gs": ObjectSource,
    "az": ObjectSource,
    "pvc": ClaimSource,
    "pypi": PypiSource,
    "catalog": CatalogSource,
}


def parse_source(uri: str) -> Source:
    """Split a source URI.

    Raises
    ------
    SourceError
        The API server refuses such a URI too; this is for objects that are older than its rules.
    """
    name = uri.partition("://")[0]
    scheme = SCHEMES.get(name)
    if scheme is None:
        raise SourceError(f"{uri!r} can't be fetched by this version: {KNOWN}")
    match = re.fullmatch(scheme.pattern, uri)
    if match is None:
        raise SourceError(f"{uri!r} is no {name}:// source: {scheme.remedy}")
    return _READ_AS[name](**match.groupdict())


def says_it_all(artifact: ModelConfig) -> bool:
    """Whether a source always stands for the same bytes: of any other it is asked which, before pods are made of them.

    An image is mounted by its digest, which the checksum of a file in it doesn't tell.
    """
    return not artifact.mounted and (artifact.sha256 is not None or artifact.source.startswith("pypi://"))


def file_name(uri: str) -> str:
    """The file that a source names, for people; the URI itself where it can't be read."""
    try:
        return parse_source(uri).file_name
    except SourceError:
        return uri


def claim_of_source(uri: str) -> str | None:
    """The claim that the model lies on already; None where it is fetched from elsewhere."""
    source = _of_scheme("pvc://", uri)
    return source.claim if isinstance(source, ClaimSource) else None


def lies_elsewhere(artifact: ModelConfig) -> bool:
    """Whether the source's files are on a claim or in an image, and are linked to."""
    return claim_of_source(artifact.source) is not None or artifact.mounted is True


def name_in_catalog(uri: str) -> str | None:
    """The name that stands for a source; None where the source itself is written."""
    source = _of_scheme("catalog://", uri)
    return source.name if isinstance(source, CatalogSource) else None


def public(uri: str) -> str:
    """The URI without its query, which may be a signature."""
    return uri.partition("?")[0].partition("#")[0]


def _of_scheme(scheme: str, uri: str) -> Source | None:
    try:
        return parse_source(uri) if uri.startswith(scheme) else None
    except SourceError:
        return None


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
