"""Which sources and images the site allows, judged by their parts: `https://models.corp` says nothing of `models.corp.evil`.

A rule and what is held against it are taken apart alike, from the broadest part to the narrowest: scheme, host, path by
whole segments; registry, repository, tag or digest. A rule admits what begins with its parts.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from slm_operator.crd.source import MIRRORED
from slm_operator.model.parts import (
    IMAGES,
    OLLAMA,
    Parts,
    UnreadableError,
    host,
    in_registry,
    package,
    plain_name,
    reference,
    reference_rule,
    segments,
    tagged,
)


class RuleError(ValueError):
    """A rule of the operator's configuration that can't be read; the message says what to write."""


def source_rule(text: str) -> Parts:
    """Read an entry of `fetch.allowedSources`.

    Raises
    ------
    RuleError
        It names nothing, or what it names could be read in two ways.
    """
    try:
        return _source(text, rule=True)
    except UnreadableError as error:
        examples = ", ".join(scheme.example for scheme in _SCHEMES.values())
        raise RuleError(f"{text!r} can't be a rule: {error}. Write rules such as {examples}") from error


def source_allowed(uri: str, rules: Iterable[str]) -> bool:
    """Whether one of the rules admits a source."""
    try:
        return _admitted(_source(uri, rule=False), map(source_rule, rules))
    except UnreadableError:
        return False


def mirror_rule(text: str) -> Parts:
    """Read what stands in a source's place: it names a place, not a whole scheme.

    Raises
    ------
    RuleError
    """
    parts = source_rule(text)
    if len(parts) < 2 or parts[0] not in MIRRORED:
        raise RuleError(
            f"{text!r} can't be a mirror: write a host, registry or bucket after one of "
            f"{', '.join(f'{each}://' for each in MIRRORED)}"
        )
    return parts


def mirror_allowed(mirror: str, rules: Iterable[str]) -> bool:
    """Whether the rules admit all that lies under a mirror."""
    try:
        return _admitted(mirror_rule(mirror), map(source_rule, rules))
    except RuleError:
        return False


def host_rule(text: str) -> None:
    """Read an entry of `fetch.hosts`, which the runtime compares as it stands.

    Raises
    ------
    RuleError
    """
    try:
        (read,) = host(text)
    except UnreadableError as error:
        raise RuleError(
            f"{text!r} can't be a host: {error}. Write models.corp or models.corp:8443"
        ) from error
    if text not in {read, read.rpartition(":")[0]}:
        raise RuleError(f"{text!r} can't be a host: write {read.removesuffix(':443')}")


def image_rule(text: str) -> Parts:
    """Read an entry of `runtime.allowedImagePrefixes`.

    Raises
    ------
    RuleError
        It names no registry, repository or image.
    """
    try:
        return reference_rule(text, IMAGES)
    except UnreadableError as error:
        raise RuleError(
            f"{text!r} can't be a rule: {error}. Write rules such as registry.corp/, registry.corp:5000/team/, "
            "registry.corp/team/image:tag"
        ) from error


def image_allowed(image: str, rules: Iterable[str]) -> bool:
    """Whether one of the rules admits an image. Where it has a digest, its tag means nothing."""
    try:
        return _admitted(tagged(reference(image, IMAGES)), map(image_rule, rules))
    except UnreadableError:
        return False


def _admitted(parts: Parts, rules: Iterable[Parts]) -> bool:
    return any(parts[: len(rule)] == rule for rule in rules)


def _source(text: str, *, rule: bool) -> Parts:
    name, separator, rest = text.partition("://")
    scheme = _SCHEMES.get(name.lower())
    if not separator or scheme is None:
        raise UnreadableError(f"it begins with none of {', '.join(f'{each}://' for each in _SCHEMES)}")
    if any(character <= " " or character == "\x7f" for character in rest):
        raise UnreadableError("it has blanks or control characters")
    if rule and rest in {"", "/"}:
        return (name.lower(),)
    return (name.lower(), *scheme.read(rest, rule))


@dataclass(frozen=True)
class _Path:
    """What stands before the first slash, and a path below it."""

    place: Callable[[str], Parts]
    """Takes apart what stands before the slash."""
    depth: int = 1
    """Parts of a place to which nothing is missing."""
    walled: bool = False
    """Whether no path, however servers read it, leads out of the place."""

    def __call__(self, rest: str, rule: bool, /) -> Parts:
        authority, _, path = rest.partition("/")
        path, *extra = re.split(r"([?#])", path, maxsplit=1)
        if rule and extra:
            raise UnreadableError(f"nothing is told apart by what follows {extra[0]!r}")
        parts = self.place(authority)
        if len(parts) < self.depth and (path or not rule):
            raise UnreadableError("a path has to come after a version")
        try:
            return *parts, *segments(path)
        except UnreadableError:
            if rule:
                raise
            # Servers differ on where it leads: allowed only where everything there is.
            return parts if self.walled else ()


_NAMED: Final = _Path(plain_name)


def _hub(rest: str, rule: bool, /) -> Parts:
    """A repository's revisions aren't told apart: each is what its owner made of it."""
    return _NAMED(_without(rest, "@", rule), rule)


def _ollama(rest: str, rule: bool, /) -> Parts:
    return reference_rule(rest, OLLAMA) if rule else tagged(reference(rest, OLLAMA))


def _oci(rest: str, rule: bool, /) -> Parts:
    artifact = _without(rest, "#", rule)
    if rule:
        return in_registry(artifact.removesuffix("/"), whole="/" in artifact and not artifact.endswith("/"))
    return tagged(in_registry(artifact, whole=True))


def _without(text: str, mark: str, rule: bool) -> str:
    before, found, _ = text.partition(mark)
    if found and rule:
        raise UnreadableError(f"nothing is told apart by what follows {mark!r}")
    return before


@dataclass(frozen=True)
class _Scheme:
    read: Callable[[str, bool], Parts]
    """Takes apart what follows the scheme; True: of a rule."""
    example: str


_SCHEMES: Final[Mapping[str, _Scheme]] = {
    "https": _Scheme(_Path(host, walled=True), "https://models.corp/team/"),
    "hf": _Scheme(_hub, "hf://organization/"),
    "ollama": _Scheme(_ollama, "ollama://library/"),
    "oci": _Scheme(_oci, "oci://registry.corp/team/"),
    "s3": _Scheme(_NAMED, "s3://bucket/team/"),
    "gs": _Scheme(_NAMED, "gs://bucket/team/"),
    "az": _Scheme(_NAMED, "az://container/team/"),
    "pvc": _Scheme(_NAMED, "pvc://claim"),
    "pypi": _Scheme(_Path(package, depth=2, walled=True), "pypi://package"),
    "catalog": _Scheme(_NAMED, "catalog://"),
}
