"""Pods → the container whose log tells what goes on. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]


@dataclass(frozen=True)
class Voice:
    """Whose log is worth reading."""

    pod: str
    container: str
    previous: bool = False
    """The container before its last restart: the present one waits, or has said nothing yet."""


def telling(pods: Iterable[Pod], container: str | None = None) -> Voice | None:
    """The most telling of all: who has failed, else who works on what isn't finished, else the newest server.

    Parameters
    ----------
    container
        `fetch`, `serve` or `inspect`: only theirs.

    Returns
    -------
    None where no container has begun.
    """
    newest = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    found = [each for pod in newest for each in _voices(pod) if container in {None, each[1].container}]
    return min(found, key=lambda each: each[0], default=(0, None))[1]


def _voices(pod: Pod) -> Iterator[tuple[int, Voice]]:
    """With how little each has to say."""
    name, status = str(pod["metadata"]["name"]), pod.get("status", {})
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state, last = each.get("state") or {}, each.get("lastState") or {}
        crashed = bool((last.get("terminated") or {}).get("exitCode"))
        if "running" in state:
            ready = bool(each.get("ready"))
            yield (2 if ready else 1), Voice(name, each["name"])
            if crashed and not ready:
                yield 0, Voice(name, each["name"], previous=True)
        elif "terminated" in state:
            yield (0 if state["terminated"].get("exitCode") else 3), Voice(name, each["name"])
        elif last:
            yield (0 if crashed else 3), Voice(name, each["name"], previous=True)
