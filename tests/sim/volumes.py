"""What lies in claims: a fetch brings its model there, and takes away what it was told that nothing uses."""

from dataclasses import dataclass, field

from slm_contract.config import RuntimeConfig
from slm_contract.places import CONFIG_ENV, RETENTION_ENV
from slm_contract.retention import Removed, Retention
from tests.sim.cluster import Doc, Ref

BYTES = 98_000_000
"""Of each model."""


@dataclass
class Volumes:
    models: dict[Ref, set[str]] = field(default_factory=dict)
    """Folders, by claim."""

    def fetch(self, claim: Ref, pod: Doc, in_use: set[str]) -> Removed | None:
        """What a fetch removes before it fetches.

        Parameters
        ----------
        in_use
            Folders that pods serve.
        """
        there = self.models.setdefault(claim, set())
        told = _variable(pod, RETENTION_ENV)
        going: set[str] = set()
        if told is not None:
            going = there - in_use - {*Retention.model_validate_json(told).keep, folder(pod)}
            there -= going
        there.add(folder(pod))
        return Removed(models=len(going), bytes=len(going) * BYTES) if going else None


def folder(pod: Doc) -> str:
    """The folder of the model that a pod was told of."""
    return RuntimeConfig.model_validate_json(_variable(pod, CONFIG_ENV) or "").model.folder


def _variable(pod: Doc, name: str) -> str | None:
    containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
    values = [
        each["value"]
        for container in containers
        for each in container.get("env") or ()
        if each["name"] == name
    ]
    return next(iter(values), None)
