"""Who was touched since one last looked: changes for those that look at their own pace, each key once."""

import asyncio
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Touched(Generic[K]):
    """One follower's view.

    Parameters
    ----------
    known
        Counted as touched from the beginning.
    """

    def __init__(self, known: Iterable[K] = ()) -> None:
        self._keys = dict.fromkeys(known)
        self._stirred = asyncio.Event()
        if self._keys:
            self._stirred.set()

    def touch(self, key: K) -> None:
        self._keys[key] = None
        self._stirred.set()

    def take(self) -> list[K]:
        """Those since the last call, maybe none."""
        self._stirred.clear()
        keys = list(self._keys)
        self._keys.clear()
        return keys

    async def wait(self) -> None:
        """Until there is one to take."""
        await self._stirred.wait()
