"""What the person at the terminal sees while the harness works.

Every step that can take more than a moment says what it does and how long that
takes, and afterwards how long it took. Lines go to stderr, so that verbs that
print a result (``kubeconfig``, ``kubectl``) stay usable in a pipe.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """Print one line at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce *text*, and how many seconds it took or that it failed."""
    say(f"  {text} ...")
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"  {text}: failed after {time.monotonic() - started:.0f} s")
        raise
    say(f"  {text}: {time.monotonic() - started:.1f} s")
