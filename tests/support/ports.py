"""Ports of loopback that nobody listens on: for programs that must be told theirs."""

import contextlib
import errno
import random
import socket

_PORTS = range(11000, 30000)
"""Below those that a kernel gives to whoever asks for any: only another of these could be in the way."""


def free_ports(count: int) -> list[int]:
    """*count* different ones; each is free until somebody takes it."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.SystemRandom().choice(_PORTS)
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                ports.append(port)
    return ports


def free_port() -> int:
    return free_ports(1)[0]
