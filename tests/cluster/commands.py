"""Run a program to its end and say well what went wrong."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import HarnessError

TAIL_LINES = 25


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Cut *text* down to its last *lines* lines."""
    return "\n".join(text.strip().splitlines()[-lines:])


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run *argv* with *env* on top of this process's environment, and return its output.

    Raises
    ------
    HarnessError
        It can't be started, takes longer than *timeout* seconds or ends with another code
        than 0. The message carries the end of what it printed.
    """
    shown = shlex.join(str(word) for word in argv)
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise HarnessError(f"{argv[0]} is not installed (needed for: {shown})") from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{shown} took longer than {timeout:g} s") from error
    if done.returncode:
        raise HarnessError(f"{shown} ended with {done.returncode}:\n{tail(done.stderr or done.stdout)}")
    return done.stdout
