"""How many SLMDeployments take a new image or class bundle of the operator's configuration at a time.

Only consented changes are paced (`rollout.upgrade: Auto`): a bad image meets a few models, not all of the cluster's. Kept in
memory: after a restart those that are under way go on, and as many more may begin.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Pace(Generic[K]):
    """Admits keys up to a limit; each stays admitted until it is done."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way: set[K] = set()

    def admits(self, key: K) -> bool:
        return key in self._under_way or len(self._under_way) < self._limit

    def begin(self, key: K) -> None:
        self._under_way.add(key)

    def done(self, key: K) -> None:
        """It has come to rest, well or not, or is gone."""
        self._under_way.discard(key)
