"""How much of large request bodies is held at once: a pod's memory is fitted to its model, not to what clients send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

SMALL_BYTES: Final = 256 * 1024
"""What a body may have without a turn: more than almost every one."""
HELD_BYTES: Final = 12 * 1024 * 1024
"""Of all larger ones together. In memory a body is several times its size: text, decoded text, rendered prompt."""


class Bodies:
    """Hands out turns; who has none yet leaves the body in the network, where its sender waits."""

    def __init__(self, held: int = HELD_BYTES) -> None:
        self._free = held
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes, once others have given up enough."""
        async with self._changed:
            await self._changed.wait_for(lambda: size <= self._free)
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            async with self._changed:
                self._changed.notify_all()
