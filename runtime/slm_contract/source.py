"""What a model's source is, as both sides know it: which bytes it stood for, and how a site is fetched from."""

import hashlib
from collections.abc import Iterable
from typing import Self

from pydantic import Field

from slm_contract.base import ContractModel


class ModelFile(ContractModel):
    path: str
    """Below the model's folder, with `/`."""
    size_bytes: int
    sha256: str | None = None
    """64 hex digits; None where the source doesn't give it and the file wasn't read yet."""


class SourcePin(ContractModel):
    """Which bytes a source stood for when it was asked: what runs is that, or nothing."""

    revision: str | None = None
    """What the source calls that state: a commit, a manifest's digest, an object's version."""
    digest: str
    """64 hex digits that name the bytes of all files."""
    path: str | None = None
    """What was chosen where the source has the model in several number formats: a file of it, or a tag."""

    @classmethod
    def of(
        cls, revision: str | None, files: Iterable[tuple[str, int | None, str | None, str | None]]
    ) -> Self:
        """Make one of each file's path, size, sha256 and version.

        Where every file's checksum is known these alone count: the same bytes have one digest wherever they come from.
        """
        listed = sorted(files)
        if all(sha256 for _, _, sha256, _ in listed):
            lines = [sha256 or "" for _, _, sha256, _ in listed]
        else:
            lines = [f"{path} {size} {sha256 or version}" for path, size, sha256, version in listed]
        return cls(revision=revision, digest=hashlib.sha256("\n".join(lines).encode()).hexdigest())


class Mirror(ContractModel):
    source: str
    """What a source's address begins with: `hf://`, `oci://docker.io/`, `https://host/path/`."""
    mirror: str
    """What stands in its place."""


def mirror_of(mirrors: Iterable[Mirror], address: str) -> Mirror | None:
    """The mirror whose `source` fits an address the longest; of two alike the first.

    A source's prefix ends at a border: `https://host` says nothing of `https://host.example`.
    """
    fitting = (each for each in mirrors if address.startswith(each.source))
    ending = (
        each
        for each in fitting
        if each.source.endswith("/") or address[len(each.source) :][:1] in ("", *"/:@?")
    )
    return max(ending, key=lambda each: len(each.source), default=None)


def at_mirror(mirror: Mirror, address: str) -> str:
    """What stands at a mirror in place of an address that it fits."""
    prefix, rest = mirror.mirror, address[len(mirror.source) :]
    return f"{prefix.rstrip('/')}/{rest.lstrip('/')}" if rest and rest[0] not in ":@?" else prefix + rest


class FetchConfig(ContractModel):
    """What a fetch has to know of its site; it reaches no container but the one that fetches."""

    version: int = 1
    mirrors: tuple[Mirror, ...] = ()
    """The longest `source` that fits is taken; addresses that redirects lead to are held against them too."""
    hosts: tuple[str, ...] | None = None
    """Hosts (or `host:port`) that may be connected to, redirects included; None: any."""
    bytes_per_second: int | None = Field(default=None, ge=1)
    """The most that one fetch takes of the network; None: what there is."""
