"""What the cluster does by itself: garbage collection, Deployments, Jobs, and pods that run.

Each call of `step` moves everything one state on, so that a test sees, and can disturb, each of them.
"""

import asyncio
from dataclasses import dataclass

from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.daemons import Daemons
from tests.sim.deployments import Deployments
from tests.sim.pods import Pods, condition, is_going


@dataclass
class Controllers:
    """Everything in a cluster that isn't the operator."""

    cluster: MemoryCluster

    def __post_init__(self) -> None:
        self.pods = Pods(self.cluster)
        self.deployments = Deployments(self.cluster, self.pods)
        self.daemons = Daemons(self.cluster, self.pods)
        self._rested_at = -1

    @property
    def starts(self) -> dict[str, int]:
        """Pods made for each Deployment, by its name."""
        return self.deployments.starts

    def limit_pods(self, quota: int | None) -> None:
        """A ResourceQuota comes, changes or goes."""
        self.pods.quota, self._rested_at = quota, -1

    def step(self) -> None:
        """One state on; nothing where nothing has changed since the last, and no deadline has passed."""
        revision = self.cluster.revision
        if revision == self._rested_at and asyncio.get_running_loop().time() < self.deployments.due:
            return
        self.pods.end()
        self.collect_garbage()
        self.deployments.step()
        self.daemons.step()
        for ref, job in self.cluster.of("Job"):
            self._run_job(ref, job)
        self._rested_at = revision if self.cluster.revision == revision else -1

    def collect_garbage(self) -> None:
        """Until nothing has an owner that is gone; pods take a step more to end."""
        while True:
            alive = {document["metadata"]["uid"] for document in self.cluster.objects.values()}
            orphans = [
                ref
                for ref, document in self.cluster.objects.items()
                if (owners := document["metadata"].get("ownerReferences"))
                and not is_going(document)
                and not any(owner["uid"] in alive for owner in owners)
            ]
            if not orphans:
                break
            for ref in orphans:
                self.cluster.remove(ref, by="gc")

    def _run_job(self, ref: Ref, job: Doc) -> None:
        pod = Ref("Pod", ref.namespace, f"{ref.name}-0")
        if is_going(job) or (job.get("status") or {}).get("succeeded"):
            return
        live = self.cluster.objects.get(pod)
        if live is None:
            self.pods.start(ref, job, pod.name, job["spec"]["template"], "job")
        elif live["status"]["phase"] == "Succeeded":
            complete = {"succeeded": 1, "conditions": [condition("Complete", "True")]}
            self.pods.set_status(ref, complete)
        else:
            self.pods.advance(pod, live)

    def report(self, address: str) -> bytes | None:
        """What a pod's `/report` answers."""
        return self.pods.report(address)
