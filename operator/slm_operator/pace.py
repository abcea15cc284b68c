"""How many SLMDeployments take a new image or class bundle of the operator's configuration at a time.

Only consented changes are paced (`rollout.upgrade: Auto`): a bad image meets a few models, not all of the cluster's. Kept in
memory: after a restart those that are under way go on, and as many more may begin.
"""

from collections.abc import Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Pace(Generic[K]):
    """Admits keys up to a limit; each stays admitted until it is done."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way: set[K] = set()
        self._waiting: dict[K, None] = {}
        """In the order in which they were turned away."""

    def admits(self, key: K) -> bool:
        return key in self._under_way or len(self._under_way) < self._limit

    def begin(self, key: K) -> None:
        self._waiting.pop(key, None)
        self._under_way.add(key)

    def wait(self, key: K) -> None:
        """It was turned away, and is to be told when there is room."""
        self._waiting.setdefault(key)

    def done(self, key: K) -> list[K]:
        """It has come to rest, well or not, or is gone.

        Returns
        -------
        list
            Those that there is room for now, each told once.
        """
        self._under_way.discard(key)
        self._waiting.pop(key, None)
        room = max(0, self._limit - len(self._under_way))
        admitted = list(islice(self._waiting, room))
        for each in admitted:
            del self._waiting[each]
        return admitted
