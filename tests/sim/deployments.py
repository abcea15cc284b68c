"""The Deployment controller, as Kubernetes has it, without ReplicaSets between: pods are of a template by its hash."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import orjson

from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.pods import Pods, condition, is_going, is_ready

HASH = "pod-template-hash"
Pod = tuple[Ref, Doc]


@dataclass
class _Progress:
    """What the controller remembers of a rollout."""

    digest: str
    counts: tuple[int, ...] = ()
    since: float = 0.0
    complete: bool = False


@dataclass
class Deployments:
    cluster: MemoryCluster
    pods: Pods
    starts: dict[str, int] = field(default_factory=dict)
    """Pods made for each Deployment, by its name."""
    due: float = math.inf
    """When time alone changes a status: somebody's progress deadline."""
    _progress: dict[str, _Progress] = field(default_factory=dict)

    def step(self) -> None:
        self.due = math.inf
        for ref, deployment in self.cluster.of("Deployment"):
            if not is_going(deployment) and not deployment["spec"].get("paused"):
                self._roll(ref, deployment)

    def _roll(self, ref: Ref, deployment: Doc) -> None:
        digest = digest_of(deployment["spec"]["template"])
        for pod, document in self.pods.of(deployment):
            self.pods.advance(pod, document)
        there = self.pods.of(deployment)
        new = [each for each in there if not is_going(each[1]) and _hash(each[1]) == digest]
        old = [each for each in there if not is_going(each[1]) and _hash(each[1]) != digest]
        refused = False
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            self._remove(old)
            leaving = any(is_going(each) and _hash(each) != digest for _, each in there)
            if not old and not leaving:
                refused = self._scale(ref, deployment, new, digest, deployment["spec"]["replicas"])
        else:
            refused = self._replace(ref, deployment, new, old, digest)
        self._report(ref, digest, refused=refused)

    def _replace(self, ref: Ref, deployment: Doc, new: list[Pod], old: list[Pod], digest: str) -> bool:
        """Rolling: never more than the surge beyond what is wanted, nor fewer ready than allowed."""
        wanted, rolling = deployment["spec"]["replicas"], deployment["spec"]["strategy"]["rollingUpdate"]
        surge = _share(rolling["maxSurge"], wanted, up=True)
        least = wanted - _share(rolling["maxUnavailable"], wanted, up=False)
        room = max(0, wanted + surge - len(new) - len(old))
        refused = self._scale(ref, deployment, new, digest, min(wanted, len(new) + room))
        serving = sum(is_ready(each) for _, each in new)
        healthy = [each for each in old if is_ready(each[1])]
        spare = len(old) + serving - least
        if spare > 0:
            self._remove([each for each in old if each not in healthy][:spare])
            self._remove(healthy[::-1][: max(0, len(healthy) + serving - least)])
        return refused

    def _scale(self, ref: Ref, deployment: Doc, new: list[Pod], digest: str, wanted: int) -> bool:
        """Make or take away pods of the present template; True where the quota forbids one."""
        while len(new) > wanted:
            self._remove([new.pop()])
        for number in range(wanted):
            name = f"{ref.name}-{digest}-{number}"
            pod = Ref("Pod", ref.namespace, name)
            if pod in self.cluster.objects:
                continue
            if not self.pods.start(ref, deployment, name, deployment["spec"]["template"], digest):
                return True
            self.starts[ref.name] = self.starts.get(ref.name, 0) + 1
            new.append((pod, self.cluster.objects[pod]))
        return False

    def _remove(self, pods: Sequence[Pod]) -> None:
        for ref, _ in pods:
            self.cluster.remove(ref, by="controller")

    def _report(self, ref: Ref, digest: str, *, refused: bool) -> None:
        deployment = self.cluster.objects[ref]
        wanted = deployment["spec"]["replicas"]
        there = [each for _, each in self.pods.of(deployment) if not is_going(each)]
        new = [each for each in there if _hash(each) == digest]
        ready = sum(map(is_ready, there))
        counts = (len(new), len(there) - len(new), sum(map(is_ready, new)), ready)
        complete = counts == (wanted, 0, wanted, wanted)
        rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {"maxUnavailable": 0}
        least = wanted - _share(rolling["maxUnavailable"], wanted, up=False)
        conditions = [
            condition("Available", "True" if ready >= least else "False"),
            self._progressing(deployment, digest, counts, complete=complete),
        ]
        if refused:
            words = f'pods "{ref.name}-{digest}" is forbidden: exceeded quota: pods, requested: pods=1'
            failure = {**condition("ReplicaFailure", "True"), "reason": "FailedCreate", "message": words}
            conditions.append(failure)
        self.pods.set_status(
            ref,
            {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": len(there),
                "updatedReplicas": len(new),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "unavailableReplicas": max(0, wanted - ready),
                "conditions": conditions,
            },
        )

    def _progressing(self, deployment: Doc, digest: str, counts: tuple[int, ...], *, complete: bool) -> Doc:
        """A rollout that was complete stays so, whatever becomes of its pods."""
        now = asyncio.get_running_loop().time()
        seen = self._progress.setdefault(deployment["metadata"]["uid"], _Progress(digest, since=now))
        if seen.digest != digest:
            seen.digest, seen.complete, seen.since = digest, False, now
        if seen.counts != counts:
            seen.counts, seen.since = counts, now
        seen.complete = seen.complete or complete
        if seen.complete:
            return {**condition("Progressing", "True"), "reason": "NewReplicaSetAvailable"}
        deadline = seen.since + deployment["spec"]["progressDeadlineSeconds"]
        if now < deadline:
            self.due = min(self.due, deadline)
            return {**condition("Progressing", "True"), "reason": "ReplicaSetUpdated"}
        words = f'ReplicaSet "{deployment["metadata"]["name"]}-{digest}" has timed out progressing.'
        return {
            **condition("Progressing", "False"),
            "reason": "ProgressDeadlineExceeded",
            "message": words,
        }


def digest_of(template: Doc) -> str:
    return sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]


def _hash(pod: Doc) -> str:
    return str(pod["metadata"]["labels"][HASH])


def _share(value: int | str, wanted: int, *, up: bool) -> int:
    """A number, or a percentage of what is wanted."""
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * wanted / 100
    return math.ceil(share) if up else math.floor(share)
