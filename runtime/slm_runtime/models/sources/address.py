"""URLs: which server they mean, what of them people may read, and whether they may be asked in the clear."""

import base64
import ipaddress
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from slm_runtime.errors import SourceInvalid, SourceUntrusted

NEVER_SOURCES: Final = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")))
"""Of one network segment alone, where clouds tell each machine its credentials: no model lies there."""


class Origin(NamedTuple):
    """Who is asked; credentials belong to one."""

    scheme: str
    host: str
    port: int


def split(url: str) -> SplitResult:
    """Split an http or https URL.

    Raises
    ------
    SourceInvalid
        It is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SourceInvalid(f"{url!r} is no URL: {error}.") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
        raise SourceInvalid(f"{redacted(url)!r} is no https:// URL with a host.")
    return parts


def origin(url: str) -> Origin:
    parts = split(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def redacted(url: str) -> str:
    """Leave out the user, the password and the query, where signed URLs carry their secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def split_login(url: str) -> tuple[str, str | None]:
    """Take `user:password@` out of a URL: the URL without it, and an Authorization header of it."""
    parts = split(url)
    login, has_login, host = parts.netloc.rpartition("@")
    if not has_login:
        return url, None
    user, _, password = login.partition(":")
    return parts._replace(netloc=host).geturl(), basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def check_encrypted(url: str, plain_hosts: frozenset[str]) -> None:
    """Plain http is for this machine alone, and for hosts that the site trusts by name (or by name and port).

    Raises
    ------
    SourceUntrusted
        Anybody between here and there could change the file.
    """
    asked = origin(url)
    if asked.scheme == "https" or is_loopback(asked.host):
        return
    if not {asked.host, f"{asked.host}:{asked.port}"} & plain_hosts:
        raise SourceUntrusted(
            f"{redacted(url)} isn't encrypted.",
            "Use https://; for a Python index inside the cluster PIP_TRUSTED_HOST may name its host.",
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_public(host: str) -> None:
    """Refuse the addresses at which clouds answer only their own machines; names pass.

    Raises
    ------
    SourceInvalid
        A spec, a redirect or a name server leads to such an address.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    address = getattr(address, "ipv4_mapped", None) or address
    if any(address in network for network in NEVER_SOURCES):
        raise SourceInvalid(
            f"{host} is an address at which a cloud tells its machines about themselves: nothing is fetched there.",
            "Correct spec.model.source, or the server that redirects, or its name's address.",
        )
