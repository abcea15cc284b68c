"""Python's cyclic garbage collector, kept from holding the event loop: a big cluster is half a million objects.

Each full pass would look through all of them, 0.4 seconds with 5,000 SLMDeployments, and passes come every few seconds while
there is much to do. What has survived one isn't looked at again, but for once an hour, when what died of it meanwhile goes.
"""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

HOUR: Final = 3600.0


@contextmanager
def spared() -> Iterator[None]:
    """Let full passes look at what has come since the one before."""
    gc.freeze()
    gc.callbacks.append(_keep_survivors)
    try:
        yield
    finally:
        gc.callbacks.remove(_keep_survivors)
        gc.unfreeze()


async def thoroughly(every: float = HOUR) -> None:
    """Look through everything now and then, until cancelled."""
    while True:
        await asyncio.sleep(every)
        look_through()


def look_through() -> None:
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _keep_survivors(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
