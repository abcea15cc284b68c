"""Waiting for an SLMDeployment, with its progress: until it is as asked for, or can't be."""

import shutil
import sys
import time
from typing import Final

from kubectl_slm import read
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.explain import Explanation, explain
from kubectl_slm.output import Colour, coloured

PACE: Final = 1.0
"""Seconds between two looks."""


def wait(cluster: Cluster, name: str, seconds: float) -> read.Document:
    """Look until it is as its spec asks.

    Raises
    ------
    CommandError
        Nothing gets better unless somebody changes something, or the time is over.
    """
    deadline = time.monotonic() + seconds
    shown = _Shown()
    try:
        while True:
            document = cluster.deployment(name)
            found = explain(document)
            if read.seen(document) and found.state == "good":
                shown.last(found)
                return document
            shown.now(found)
            stalled = read.conditions(document).get("Stalled")
            if read.seen(document) and stalled is not None and stalled.status == "True":
                shown.end()
                raise CommandError(f"{found.reason}: {found.sentence}", found.remedy)
            if time.monotonic() > deadline:
                shown.end()
                raise CommandError(
                    f"{name} isn't ready after {seconds:.0f} s: {found.sentence}",
                    found.remedy or f"it goes on: `kubectl slm why {name}` says how far it is",
                )
            time.sleep(PACE)
    except KeyboardInterrupt:
        shown.end()
        raise CommandError(
            f"{name} goes on without you", f"`kubectl slm why {name}` says how far it is", Exit.INTERRUPTED
        ) from None


class _Shown:
    """One line that changes on a terminal; elsewhere a line for each change."""

    def __init__(self) -> None:
        self._before = ""
        self._rewrites = sys.stderr.isatty()

    def now(self, found: Explanation) -> None:
        steady = f"{found.reason}: {found.sentence}"
        self._print(steady if not self._rewrites else ", ".join((steady, *found.more[:1])), found)

    def last(self, found: Explanation) -> None:
        self._print(f"{found.reason}: {', '.join((found.sentence, *found.more[:1]))}", found)
        self.end()

    def end(self) -> None:
        if self._rewrites and self._before:
            print(file=sys.stderr)

    def _print(self, line: str, found: Explanation) -> None:
        if line == self._before:
            return
        self._before = line
        if not self._rewrites:
            print(line, file=sys.stderr, flush=True)
            return
        colour = Colour.GOOD if found.state == "good" else Colour.WAITING
        width = _width()
        print(f"\r\x1b[K{coloured(line[:width], colour, sys.stderr)}", end="", file=sys.stderr, flush=True)


def _width() -> int:
    return shutil.get_terminal_size().columns - 1
