"""Starts an engine process: the one thing about it that needs no event loop, so that it can be done before there is one."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from slm_runtime.engine.channel import encode
from slm_runtime.engine.messages import EngineConfig

ENGINE_COMMAND: Final = (sys.executable, "-m", "slm_runtime.engine.process")
"""The descriptor of the socket is added to it."""


@dataclass(frozen=True)
class Launched:
    """A process that loads, and our end of its socket; it ends when that is closed."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket


def launch(config: EngineConfig, command: Sequence[str] = ENGINE_COMMAND) -> Launched:
    """Start it, and tell it what to load. Not forked: the native library's threads and locks start from nothing.

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
    ours.sendall(encode(config))
    ours.setblocking(False)
    return Launched(process, ours)
