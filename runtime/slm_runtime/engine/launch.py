"""Starts an engine process: the one thing about it that needs no event loop, so that it can be done before there is one.

It imports little, and nothing of ours before the process runs.
"""

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from slm_runtime.engine.loading import EngineConfig

ENGINE_COMMAND: Final = (sys.executable, "-m", "slm_runtime.engine.process")
"""The descriptor of the socket is added to it."""


@dataclass(frozen=True)
class Launched:
    """A process that loads, and our end of its socket; it ends when that is closed."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket


@dataclass(frozen=True)
class Started:
    """A process that imports what it needs, and waits to be told what to load; it ends when the socket is closed."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket

    def load(self, config: "EngineConfig") -> Launched:
        """Raise OSError where the process is gone."""
        from slm_runtime.engine.channel import encode

        self.socket.sendall(encode(config))
        self.socket.setblocking(False)
        return Launched(self.process, self.socket)


def start(command: Sequence[str] = ENGINE_COMMAND) -> Started:
    """Start it. Not forked: the native library's threads and locks start from nothing.

    Raises
    ------
    OSError
    """
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = theirs.fileno()
        process = subprocess.Popen(
            [*command, str(descriptor)], pass_fds=(descriptor,), stdin=subprocess.DEVNULL
        )
    return Started(process, ours)


def launch(config: "EngineConfig", command: Sequence[str] = ENGINE_COMMAND) -> Launched:
    """Start it, and tell it what to load.

    Raises
    ------
    OSError
    """
    return start(command).load(config)
