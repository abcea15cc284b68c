"""Children that somebody else keeps writing: their fields are taken back, ever more rarely, and meanwhile left alone.

This bounds how often the operator writes, and decides nothing else: what it forgets with a restart is only how long it had
been patient.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from slm_operator.snapshot import ChildRef
from slm_operator.store import Key

FREE: Final = 3
"""Times that a child is put right at once, within :data:`MEMORY`."""
MEMORY: Final = timedelta(minutes=10)
"""After so long without a fight a child counts as peaceful."""
FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=1)


@dataclass(frozen=True)
class _Fight:
    times: int
    last: datetime

    @property
    def until(self) -> datetime:
        """When the fields may be taken back again."""
        if self.times < FREE:
            return self.last
        pause: timedelta = min(FIRST_PAUSE * 2 ** min(self.times - FREE, 10), LONGEST_PAUSE)
        return self.last + pause


class Contest:
    """Counts fights by SLMDeployment and child."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._fights: dict[Key, dict[ChildRef, _Fight]] = {}

    def fought(self, key: Key, contested: Collection[ChildRef]) -> None:
        """Note that fields of these children are being taken back now; those that are left alone don't count."""
        now, yielding = self._clock(), self.yielding(key)
        fights = self._fights.setdefault(key, {})
        for ref in contested:
            if ref not in yielding:
                before = fights.get(ref)
                times = 0 if before is None or now - before.until > MEMORY else before.times
                fights[ref] = _Fight(times + 1, now)
        if not fights:
            del self._fights[key]

    def yielding(self, key: Key) -> frozenset[ChildRef]:
        """Children that are left alone now."""
        now = self._clock()
        return frozenset(ref for ref, fight in self._fights.get(key, {}).items() if now < fight.until)

    def wait(self, key: Key) -> float | None:
        """Seconds until one of them may be written again; None where none is left alone."""
        now = self._clock()
        waits = [
            (fight.until - now).total_seconds()
            for fight in self._fights.get(key, {}).values()
            if now < fight.until
        ]
        return min(waits, default=None)

    def forget(self, key: Key) -> None:
        """The SLMDeployment is gone."""
        self._fights.pop(key, None)
