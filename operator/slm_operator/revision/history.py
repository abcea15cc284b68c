"""The revisions that an SLMDeployment has had, and which of them its Deployment is made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from slm_operator.revision.revision import Revision, parse_revision
from slm_operator.revision.rollout import Rollout, parse_rollout
from slm_operator.snapshot import ChildRef, Document

LIMIT: Final = 5
"""Revisions that are kept; older ones go."""


@dataclass(frozen=True)
class History:
    """What was, looked up and not inferred."""

    known: Mapping[str, Revision]
    """By name."""
    rollout: Rollout | None = None
    current: Revision | None = None
    """What the Deployment is made from; None where there is no Deployment."""

    @property
    def fallback(self) -> Revision | None:
        """The last revision that served before the current one."""
        name = None if self.rollout is None else self.rollout.fallback
        return None if name is None else self.known.get(name)

    @property
    def newest(self) -> tuple[Revision, ...]:
        """The current one, and all others from the newest on."""
        others = sorted(self.known.values(), key=lambda each: -each.number)
        return tuple(others) if self.current is None else (self.current, *others)

    @property
    def next_number(self) -> int:
        return 1 + max((each.number for each in self.newest), default=0)

    def kept(self, *needed: Revision | None) -> tuple[Revision, ...]:
        """Those that stay: the needed ones, and the newest of the others up to :data:`LIMIT`, oldest first."""
        wanted = {each.name: each for each in needed if each is not None}
        for each in sorted(self.known.values(), key=lambda each: -each.number):
            if len(wanted) < LIMIT:
                wanted.setdefault(each.name, each)
        return tuple(sorted(wanted.values(), key=lambda each: (each.number, each.name)))


def known_revisions(children: Iterable[tuple[ChildRef, Document]]) -> dict[str, Revision]:
    """By name, those that this version can read."""
    read = (parse_revision(document) for ref, document in children if ref.kind == "ControllerRevision")
    return {each.name: each for each in read if each is not None}


def read_history(children: Mapping[ChildRef, Document], deployment: Document | None) -> History:
    """From the ControllerRevisions and the Deployment, both ours.

    `current` is None although there is a Deployment where its revision can't be looked up: an earlier version made it, or
    somebody has deleted the ControllerRevision.
    """
    known = known_revisions(children.items())
    rollout = parse_rollout(deployment)
    current = known.get(rollout.revision) if rollout is not None else None
    return History(known, rollout, current)
