"""What lies in claims, and on nodes: a fetch brings its model there, and takes away what it was told that nothing uses."""

from dataclasses import dataclass, field
from datetime import datetime

from slm_contract.config import RuntimeConfig
from slm_contract.places import CONFIG_ENV, RETENTION_ENV
from slm_contract.retention import Removed, Retention
from tests.sim.cluster import Doc, Ref
from tests.sim.loop import wall_clock

BYTES = 98_000_000
"""Of each model."""
STARTING_SECONDS = 60
"""From a fetch to the server that takes the model."""


@dataclass
class Cached:
    started: datetime
    """When a pod was last about to start with it."""
    unused: datetime | None = None
    """When it was first found without use."""


@dataclass
class Volumes:
    models: dict[Ref, dict[str, Cached]] = field(default_factory=dict)
    """By claim or directory of a node, the folders."""

    def fetch(self, place: Ref, pod: Doc, in_use: set[str]) -> Removed | None:
        """Bring a pod's model; answer what had to go before.

        Parameters
        ----------
        in_use
            Folders that pods serve or hold.
        """
        there, now, own = self.models.setdefault(place, {}), wall_clock(), folder(pod)
        told = _variable(pod, RETENTION_ENV)
        going: list[str] = []
        if told is not None:
            retention = Retention.model_validate_json(told)
            for name, each in there.items():
                starting = (now - each.started).total_seconds() < STARTING_SECONDS
                if name in in_use or name in retention.keep or name == own or starting:
                    each.unused = None
                    continue
                each.unused = each.unused or now
                if (now - each.unused).total_seconds() >= retention.grace_seconds:
                    going.append(name)
        for name in going:
            del there[name]
        there[own] = Cached(now)
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
