"""An event loop whose time passes only when nothing else can happen: hours in milliseconds, always the same."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: where the loop would sleep, its clock jumps."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: the simulation hangs")
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and jumps to the next timer."""

    def __init__(self) -> None:
        selector = _Skipping()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def wall_clock() -> datetime:
    """The loop's time as a date."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
