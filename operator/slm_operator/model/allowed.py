"""Which sources and images the site allows, judged by their parts: `https://models.corp` says nothing of `models.corp.evil`.

A rule and what is held against it are taken apart alike, from the broadest part to the narrowest: scheme, host, path by
whole segments; registry, repository, tag or digest. A rule admits what begins with its parts.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import unquote_to_bytes

import idna

Parts = tuple[str, ...]

DOCKER_HUB: Final = "docker.io"
HTTPS_PORT: Final = 443

_LABEL: Final = r"[a-z0-9_](?:[-a-z0-9_]*[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]{0,5}))?")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9](?:[-._A-Za-z0-9]*[A-Za-z0-9])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][-.+!_A-Za-z0-9]*")
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r":[A-Za-z0-9_][-.A-Za-z0-9_]{0,127}")
_DIGEST: Final = re.compile(r"@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-f]{32,}")


class RuleError(ValueError):
    """A rule of the operator's configuration that can't be read; the message says what to write."""


class _UnreadableError(ValueError):
    """Why a text names no such thing."""


def source_rule(text: str) -> Parts:
    """Read an entry of `fetch.allowedSources`.

    Raises
    ------
    RuleError
        It names nothing, or what it names could be read in two ways.
    """
    try:
        place, path = _source(text, rule=True)
        return *place, *_segments(path)
    except _UnreadableError as error:
        examples = ", ".join(scheme.example for scheme in _SCHEMES.values())
        raise RuleError(f"{text!r} can't be a rule: {error}. Write rules such as {examples}") from error


def source_allowed(uri: str, rules: Iterable[str]) -> bool:
    """Whether one of the rules admits a source."""
    try:
        place, path = _source(uri, rule=False)
    except _UnreadableError:
        return False
    try:
        segments = _segments(path)
    except _UnreadableError:
        # Servers differ on where it leads: allowed only where everything on the host is.
        segments = ()
    return _admitted((*place, *segments), map(source_rule, rules))


def image_rule(text: str) -> Parts:
    """Read an entry of `runtime.allowedImagePrefixes`.

    One name alone is read as the container runtimes do: `python` is Docker's own repository, `python/` all of an
    organisation's there; a name with a dot, or `localhost`, is a registry.

    Raises
    ------
    RuleError
        It names no registry, repository or image.
    """
    try:
        name = text.removesuffix("/")
        if "/" not in name and "@" not in name:
            first = name.partition(":")[0]
            if "." in first or first == "localhost" or (text != name and ":" in name):
                return (_registry(name),)
        return _image(name, whole=text == name)
    except _UnreadableError as error:
        raise RuleError(
            f"{text!r} can't be a rule: {error}. Write rules such as registry.corp/, registry.corp:5000/team/, "
            "registry.corp/team/image:tag"
        ) from error


def image_allowed(image: str, rules: Iterable[str]) -> bool:
    """Whether one of the rules admits an image. Where it has a digest, its tag means nothing."""
    try:
        parts = _image(image)
    except _UnreadableError:
        return False
    if parts[-1][0] not in ":@":
        parts = (*parts, ":latest")
    return _admitted(parts, map(image_rule, rules))


def _admitted(parts: Parts, rules: Iterable[Parts]) -> bool:
    return any(parts[: len(rule)] == rule for rule in rules)


def _source(text: str, *, rule: bool) -> tuple[Parts, str]:
    """Scheme and authority, and the path as it is written."""
    name, separator, rest = text.partition("://")
    scheme = _SCHEMES.get(name.lower())
    if not separator or scheme is None:
        raise _UnreadableError(f"it begins with none of {', '.join(f'{each}://' for each in _SCHEMES)}")
    if any(character <= " " or character == "\x7f" for character in rest):
        raise _UnreadableError("it has blanks or control characters")
    authority, _, path = rest.partition("/")
    path, *extra = re.split(r"([?#])", path, maxsplit=1)
    if rule and extra:
        raise _UnreadableError(f"nothing is told apart by what follows {extra[0]!r}")
    if rule and not authority and not path:
        return (name.lower(),), ""
    parts = scheme.authority(authority)
    if len(parts) < scheme.depth and (path or not rule):
        raise _UnreadableError("a path has to come after a version")
    return (name.lower(), *parts), path


def _segments(path: str) -> Parts:
    """Of a path, decoded; a slash at its end makes no difference."""
    return tuple(_segment(each) for each in path.removesuffix("/").split("/")) if path else ()


def _segment(raw: str) -> str:
    plain = unquote_to_bytes(raw).decode("latin-1")
    # Some servers take off what follows a semicolon before they look for dots; some decode twice.
    if (
        plain.partition(";")[0] in {"", ".", ".."}
        or unquote_to_bytes(plain) != plain.encode()
        or any(character in "/\\" or character < " " for character in plain)
    ):
        raise _UnreadableError(f"servers differ on what {raw!r} means in a path")
    return plain


def _host(authority: str) -> Parts:
    """Host and port of an https URL: one way to write each."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _UnreadableError(f"{authority!r} is no host")
    port = int(match["port"] or HTTPS_PORT)
    if not 0 < port < 1 << 16:
        raise _UnreadableError(f"there is no port {port}")
    return (f"{_host_name(match['host'])}:{port}",)


def _host_name(text: str) -> str:
    if text.startswith("["):
        try:
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        except AddressValueError as error:
            raise _UnreadableError(f"{text} is no address ({error})") from error
    name = text.lower()
    try:
        # As the runtime's HTTP client does it, so that both mean the same host.
        name = name if name.isascii() else idna.encode(name).decode()
    except idna.IDNAError as error:
        raise _UnreadableError(f"{text!r} is no host ({error})") from error
    name = name.removesuffix(".")
    if _HOST.fullmatch(name) is None:
        raise _UnreadableError(f"{text!r} is no host")
    return name


def _package(authority: str) -> Parts:
    """Name of a Python package, as indexes compare it, and its version."""
    name, at, version = authority.partition("@")
    if _PACKAGE.fullmatch(name) is None:
        raise _UnreadableError(f"{name!r} is no name of a package")
    if at and _VERSION.fullmatch(version) is None:
        raise _UnreadableError(f"{version!r} is no version of a package")
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return (normal, version) if at else (normal,)


@dataclass(frozen=True)
class _Scheme:
    authority: Callable[[str], Parts]
    """Takes apart what stands between scheme and path."""
    example: str
    depth: int = 1
    """Parts of an authority to which nothing is missing."""


_SCHEMES: Final = {
    "https": _Scheme(_host, "https://models.corp/team/"),
    "pypi": _Scheme(_package, "pypi://package", depth=2),
}


def _image(text: str, *, whole: bool = True) -> Parts:
    """Registry, repository by segments, and digest or tag where it is given.

    Parameters
    ----------
    whole
        False where more segments may follow.
    """
    name, at, digest = text.partition("@")
    folder, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    path = [*folder.split("/"), last] if slash else [last]
    hosted = "." in path[0] or ":" in path[0] or path[0] == "localhost"
    registry = _registry(path.pop(0)) if hosted and len(path) > 1 else _registry(DOCKER_HUB)
    if whole and len(path) == 1 and registry == _registry(DOCKER_HUB):
        path.insert(0, "library")
    for segment in path:
        if _REPOSITORY.fullmatch(segment) is None:
            raise _UnreadableError(f"{segment!r} is no part of a repository's name")
    if colon and (not whole or _TAG.fullmatch(colon + tag) is None):
        raise _UnreadableError(f"{tag!r} is no tag")
    if at and (not whole or _DIGEST.fullmatch(at + digest) is None):
        raise _UnreadableError(f"{digest!r} is no digest")
    version = (at + digest,) if at else (colon + tag,) if colon else ()
    return registry, *path, *version


def _registry(text: str) -> str:
    (host,) = _host(text)
    return f"{DOCKER_HUB}:{HTTPS_PORT}" if host == f"index.{DOCKER_HUB}:{HTTPS_PORT}" else host
