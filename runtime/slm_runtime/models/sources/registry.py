"""One repository of a registry, by the OCI distribution protocol: manifests and blobs, held against their digests."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from typing_extensions import override

from slm_runtime.errors import (
    ChecksumMismatch,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
)
from slm_runtime.models.sources.address import is_loopback, redacted, split
from slm_runtime.models.sources.docker_config import DOCKER_HUB, registry_credentials
from slm_runtime.models.sources.http import PROBE, HttpBlob, HttpClient, bounded
from slm_runtime.models.sources.registry_login import RegistryLogin
from slm_runtime.models.sources.remote import MAX_FILES
from slm_runtime.models.sources.site import Site

MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_DOCUMENT_BYTES: Final = 1 << 20
MAX_LISTED: Final = 5
_KINDS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ACCEPT: Final = ", ".join(_KINDS)
DIGEST: Final = r"sha256:[0-9a-f]{64}"
_PLATFORMS: Final = (("linux", "amd64"), ("linux", "arm64"))
"""A model is the same for all; which machine asks must not decide which bytes are pinned."""
_REFERENCE: Final = re.compile(
    r"(?P<host>[^/@?#\s]+)/"
    r"(?P<repository>[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*)*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>{DIGEST}))?"
)


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Platform(_Document):
    os: str = ""
    architecture: str = ""


class Descriptor(_Document):
    media_type: str = ""
    digest: str = Field(pattern=rf"^{DIGEST}$")
    size: int = Field(ge=0)
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix("sha256:")

    def annotation(self, name: str) -> str | None:
        return (self.annotations or {}).get(name) or None


class _Answer(_Document):
    """An index or a manifest; who can't tell which of the two must not guess."""

    manifests: tuple[Descriptor, ...] | None = Field(default=None, max_length=MAX_FILES)
    layers: tuple[Descriptor, ...] | None = Field(default=None, max_length=MAX_FILES)
    config: Any = None


@dataclass(frozen=True)
class Manifest:
    digest: str
    layers: tuple[Descriptor, ...]
    config: Any = None
    """As it is written: nobody is refused for what isn't read."""


@dataclass(frozen=True)
class Reference:
    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference | None":
        """Read `host[:port]/repository[:tag][@digest]`; None where it is none."""
        match = _REFERENCE.fullmatch(text)
        return cls(match["host"], match["repository"], match["tag"], match["digest"]) if match else None

    @override
    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


@dataclass(frozen=True)
class Repository:
    client: HttpClient = field(repr=False)
    url: str
    """Of the repository, without a slash at its end."""

    def manifest(self, name: str, kind: str = "manifests") -> Manifest:
        """Ask for the manifest of a tag or a digest; of an index's manifests for the one that holds a model.

        Parameters
        ----------
        kind
            Where to ask: Ollama's registry has by digest what it calls `blobs` alone.

        Raises
        ------
        SourceError
        ChecksumMismatch
        """
        url = f"{self.url}/{kind}/{name}"
        digest, content = self._document(url, ACCEPT, name if ":" in name else None)
        answer = _parse(content, url)
        if answer.layers is not None:
            return Manifest(digest, answer.layers, answer.config)
        url = f"{self.url}/manifests/{_one_of(answer.manifests or (), url).digest}"
        digest, content = self._document(url, ACCEPT, url.rpartition("/")[2])
        answer = _parse(content, url)
        if answer.layers is None:
            raise SourceInvalid(f"{redacted(url)} is an index in an index.")
        return Manifest(digest, answer.layers, answer.config)

    def pinned(self, digest: str, *kinds: str) -> Manifest:
        """Ask for the manifest that was pinned, at one place after the other.

        Raises
        ------
        SourceDrifted
            It is gone.
        """
        for kind in kinds:
            with contextlib.suppress(SourceNotFound):
                return self.manifest(digest, kind)
        raise SourceDrifted(f"{redacted(self.url)} no longer has {digest}, which was pinned.")

    def blob(self, descriptor: Descriptor) -> HttpBlob:
        """A blob as a payload. Registries redirect to addresses that don't last: each reading asks anew."""
        url = self._blob_url(descriptor)
        with self.client.get(url, PROBE) as response:
            blob = HttpBlob.seen(self.client, url, response, lambda _: descriptor.digest)
        if blob.size not in {None, descriptor.size}:
            raise SourceInvalid(
                f"{blob.where} has {blob.size:,} bytes, its manifest says {descriptor.size:,}."
            )
        return replace(blob, size=descriptor.size)

    def document(self, descriptor: Descriptor) -> bytes:
        """Read a small blob.

        Raises
        ------
        SourceInvalid
            It isn't small.
        """
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise SourceInvalid(
                f"{self._blob_url(descriptor)} has {descriptor.size:,} bytes: no text is that long."
            )
        return self._document(self._blob_url(descriptor), "*/*", descriptor.digest)[1]

    def _blob_url(self, descriptor: Descriptor) -> str:
        return f"{self.url}/blobs/{descriptor.digest}"

    def _document(self, url: str, accept: str, digest: str | None) -> tuple[str, bytes]:
        """Its digest, compared with the one that it is asked by, or the one that the registry says."""
        try:
            with self.client.get(url, {"Accept": accept}) as response:
                content = bounded(response, MAX_MANIFEST_BYTES)
                said = response.headers.get("Docker-Content-Digest", "")
        except SourceUnauthorized as error:
            raise SourceUnauthorized(
                error.message,
                f"{error.default_remedy} Registries say the same of a repository that isn't there: look at its name.",
            ) from error
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        wanted = digest or (said if said.startswith("sha256:") else found)
        if found != wanted:
            raise ChecksumMismatch(
                f"The sha256 of {redacted(url)} is {found}, it should be {wanted}.",
                "Look at the registry, and at what stands before it; nothing was kept.",
            )
        return found, content


@contextmanager
def open_repository(reference: Reference, scheme: str, site: Site) -> Iterator[Repository]:
    """Be ready to ask a registry, or the mirror that the site has in place of it.

    Parameters
    ----------
    scheme
        Of the source, with `://`: mirrors are named by it.
    """
    host = "registry-1.docker.io" if reference.host in DOCKER_HUB else reference.host
    named = f"{'http' if is_loopback(split(f'https://{host}').hostname or '') else 'https'}://{host}"
    base = site.route.endpoint(f"{scheme}{reference}", named)
    asked = site.route(f"{base}/")
    host = reference.host if asked == f"{named}/" else split(asked).netloc
    login = RegistryLogin(
        site, asked, reference.repository, registry_credentials(site, host, reference.repository)
    )
    with site.client(login=login) as client:
        yield Repository(client, f"{base}/v2/{reference.repository}")


def _parse(content: bytes, url: str) -> _Answer:
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SourceInvalid(
            f"{redacted(url)} answers with no manifest: {where}: {first['msg']}.",
            "Look whether a registry answers there, and not a proxy or a login page.",
        ) from None
    if (answer.manifests is None) == (answer.layers is None):
        raise SourceInvalid(
            f"{redacted(url)} answers with neither a manifest nor an index, or with both in one."
        )
    return answer


def _one_of(manifests: tuple[Descriptor, ...], url: str) -> Descriptor:
    """Artifacts have no platform; of an image for several the model is the same in each."""
    held = [each for each in manifests if each.annotation("vnd.docker.reference.type") is None]
    plain = [each for each in held if each.platform is None or not each.platform.os]
    if len(plain) == 1:
        return plain[0]
    if plain:
        names = ", ".join(each.digest for each in plain[:MAX_LISTED])
        raise SourceInvalid(
            f"{redacted(url)} is an index of {len(plain)} artifacts: {names}.",
            "Name one of them: oci://host/repository@digest.",
        )
    for os, architecture in _PLATFORMS:
        for each in held:
            if each.platform is not None and (each.platform.os, each.platform.architecture) == (
                os,
                architecture,
            ):
                return each
    raise SourceNotFound(
        f"{redacted(url)} is an index without an artifact or an image for linux/amd64 or linux/arm64."
    )
