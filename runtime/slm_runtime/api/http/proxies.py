"""Who asks, behind a proxy: its word counts where the deployment trusts it.

Everybody behind an ingress would be one client else, and wait for each other's turn.
"""

import logging
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final

_log = logging.getLogger("slm.api")

_USERS: Final = (b"x-openwebui-user-id", b"x-forwarded-user", b"x-auth-request-user")
"""Headers that name a user: Open WebUI's, and what authenticating proxies send."""
_LONGEST: Final = 128


class Proxies:
    def __init__(self, ranges: Iterable[str]) -> None:
        self._networks = []
        for each in ranges:
            try:
                self._networks.append(ip_network(each, strict=False))
            except ValueError:
                _log.warning("%s is no range of addresses: no proxy is trusted for it", each)

    def trusts(self, address: str) -> bool:
        try:
            parsed = ip_address(address.strip())
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(mapped in network for network in self._networks)

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The last address of `X-Forwarded-For` that is no trusted proxy's: those before it anybody may have written."""
        if not self.trusts(peer):
            return peer
        named = (forwarded or b"").decode("latin-1").split(",")
        return next(
            (each.strip()[:_LONGEST] for each in reversed(named) if each.strip() and not self.trusts(each)),
            peer,
        )

    def user(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Of a request that a trusted proxy brought."""
        named = {name: value for name, value in headers if name in _USERS}
        return next((named[name].decode("latin-1")[:_LONGEST] for name in _USERS if named.get(name)), "")
