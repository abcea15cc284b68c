"""What sources and images are made of, from the broadest part to the narrowest, each in the one way to write it."""

import re
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
_NAME: Final = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]*")
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r":[A-Za-z0-9_][-.A-Za-z0-9_]{0,127}")
_DIGEST: Final = re.compile(r"@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-f]{32,}")


class UnreadableError(ValueError):
    """Why a text names no such thing."""


def segments(path: str) -> Parts:
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
        raise UnreadableError(f"servers differ on what {raw!r} means in a path")
    return plain


def host(authority: str) -> Parts:
    """Host and port of an https URL: one way to write each."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise UnreadableError(f"{authority!r} is no host")
    port = int(match["port"] or HTTPS_PORT)
    if not 0 < port < 1 << 16:
        raise UnreadableError(f"there is no port {port}")
    return (f"{_host_name(match['host'])}:{port}",)


def _host_name(text: str) -> str:
    if text.startswith("["):
        try:
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        except AddressValueError as error:
            raise UnreadableError(f"{text} is no address ({error})") from error
    name = text.lower()
    try:
        # As the runtime's HTTP client does it, so that both mean the same host.
        name = name if name.isascii() else idna.encode(name).decode()
    except idna.IDNAError as error:
        raise UnreadableError(f"{text!r} is no host ({error})") from error
    name = name.removesuffix(".")
    if _HOST.fullmatch(name) is None:
        raise UnreadableError(f"{text!r} is no host")
    return name


def package(authority: str) -> Parts:
    """Name of a Python package, as indexes compare it, and its version."""
    name, at, version = authority.partition("@")
    if _PACKAGE.fullmatch(name) is None:
        raise UnreadableError(f"{name!r} is no name of a package")
    if at and _VERSION.fullmatch(version) is None:
        raise UnreadableError(f"{version!r} is no version of a package")
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return (normal, version) if at else (normal,)


def plain_name(text: str) -> Parts:
    """Of a bucket, a claim, an organisation."""
    if _NAME.fullmatch(text) is None:
        raise UnreadableError(f"{text!r} is no name")
    return (text,)


@dataclass(frozen=True)
class Naming:
    """What is meant where a reference leaves something out."""

    registry: str
    segment: re.Pattern[str]
    """A part of a repository's name."""
    library_everywhere: bool = False
    """Whether a single name lies in `library` of other registries too."""
    deepest: int | None = None
    """Parts that a repository's name has at most: one more is a registry, whatever it looks like."""


IMAGES: Final = Naming(DOCKER_HUB, _REPOSITORY)
OLLAMA: Final = Naming("registry.ollama.ai", _NAME, library_everywhere=True, deepest=2)


def reference(text: str, naming: Naming, *, whole: bool = True) -> Parts:
    """Registry, repository by segments, and digest or tag where it is given.

    Parameters
    ----------
    whole
        False where more segments may follow.
    """
    head, slash, tail = text.partition("/")
    hosted = bool(slash) and (_is_host(head) or text.count("/") == naming.deepest)
    home = registry(naming.registry)
    place = registry(head) if hosted else home
    path, version = repository(tail if hosted else text, naming.segment, whole=whole)
    if whole and len(path) == 1 and (naming.library_everywhere or place == home):
        path = ("library", *path)
    return place, *path, *version


def reference_rule(text: str, naming: Naming) -> Parts:
    """What a rule says of references.

    One name alone is read as the container runtimes do: `python` is Docker's own repository, `python/` all of an
    organisation's there; a name with a dot, or `localhost`, is a registry.
    """
    name = text.removesuffix("/")
    if "/" not in name and "@" not in name:
        first = name.partition(":")[0]
        if "." in first or first == "localhost" or (text != name and ":" in name):
            return (registry(name),)
    return reference(name, naming, whole=text == name)


def in_registry(text: str, *, whole: bool) -> Parts:
    """A reference that begins with its registry, whatever that looks like."""
    head, _, tail = text.partition("/")
    if not tail and not whole:
        return (registry(head),)
    place = registry(head)
    path, version = repository(tail, _REPOSITORY, whole=whole)
    if whole and len(path) == 1 and place == registry(DOCKER_HUB):
        path = ("library", *path)
    return place, *path, *version


def repository(text: str, segment: re.Pattern[str], *, whole: bool) -> tuple[Parts, Parts]:
    """A repository by segments, and its digest or else its tag, where one is given."""
    name, at, digest = text.partition("@")
    folder, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    path = (*folder.split("/"), last) if slash else (last,)
    for each in path:
        if segment.fullmatch(each) is None:
            raise UnreadableError(f"{each!r} is no part of a repository's name")
    if colon and (not whole or _TAG.fullmatch(colon + tag) is None):
        raise UnreadableError(f"{tag!r} is no tag")
    if at and (not whole or _DIGEST.fullmatch(at + digest) is None):
        raise UnreadableError(f"{digest!r} is no digest")
    return path, (at + digest,) if at else (colon + tag,) if colon else ()


def tagged(parts: Parts) -> Parts:
    """A reference with the tag that is meant where it has none."""
    return parts if parts[-1][0] in ":@" else (*parts, ":latest")


def registry(text: str) -> str:
    (found,) = host(text)
    same = {f"{name}.{DOCKER_HUB}:{HTTPS_PORT}" for name in ("index", "registry-1")}
    return f"{DOCKER_HUB}:{HTTPS_PORT}" if found in same else found


def _is_host(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost"
