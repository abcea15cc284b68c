"""Ports of loopback that nobody listens on: for programs that must be told theirs."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """*count* different ones; each is free until somebody takes it."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def free_port() -> int:
    return free_ports(1)[0]
