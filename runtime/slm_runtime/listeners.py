"""Listening sockets, bound before anything slow begins. What fetches has no other need of a server's libraries."""

import contextlib
import errno
import socket
from typing import Final

from slm_runtime.errors import ConfigError, PortInUse

BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; on every address of both families where `host` is 0.0.0.0, since clusters may be IPv6.

    Raises
    ------
    PortInUse, ConfigError
    """
    try:
        if host == "0.0.0.0" and socket.has_dualstack_ipv6():
            with contextlib.suppress(_NoIPv6):
                return _dual_stack(port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Port {port} on {host} is in use by another process.") from None
        raise ConfigError(
            f"Can't listen on {host}:{port}: {error.strerror}.", "Choose an address of this machine."
        ) from None


class _NoIPv6(Exception):
    """The kernel has IPv6, this network has none."""


def _dual_stack(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise _NoIPv6 from None
        raise
