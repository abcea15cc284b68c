"""The DaemonSet controller: a pod on each node that its labels select, one after the other where the template changes."""

from dataclasses import dataclass

from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.deployments import HASH, digest_of
from tests.sim.pods import Pods, is_going, is_ready


@dataclass
class Daemons:
    cluster: MemoryCluster
    pods: Pods

    def step(self) -> None:
        for ref, daemon_set in self.cluster.of("DaemonSet"):
            if not is_going(daemon_set):
                self._run(ref, daemon_set)

    def _run(self, ref: Ref, daemon_set: Doc) -> None:
        template = daemon_set["spec"]["template"]
        digest = digest_of(template)
        for pod, document in self.pods.of(daemon_set):
            self.pods.advance(pod, document)
        wanted = [node.name for node, document in self.cluster.of("Node") if _selects(template, document)]
        there = {pod["spec"]["nodeName"]: (each, pod) for each, pod in self.pods.of(daemon_set)}
        leaving = False
        for node, (each, pod) in there.items():
            outdated = pod["metadata"]["labels"][HASH] != digest
            if not is_going(pod) and (node not in wanted or (outdated and not leaving)):
                leaving = True
                self.cluster.remove(each, by="controller")
        for node in wanted:
            if node not in there:
                spec = {**template["spec"], "nodeName": node}
                self.pods.start(ref, daemon_set, f"{ref.name}-{node}", {**template, "spec": spec}, digest)
        live = [pod for _, pod in self.pods.of(daemon_set) if not is_going(pod)]
        self.pods.set_status(
            ref,
            {
                "observedGeneration": daemon_set["metadata"]["generation"],
                "desiredNumberScheduled": len(wanted),
                "currentNumberScheduled": len(live),
                "numberReady": sum(map(is_ready, live)),
                "numberMisscheduled": 0,
            },
        )


def _selects(template: Doc, node: Doc) -> bool:
    selector = template["spec"].get("nodeSelector") or {}
    return bool(selector.items() <= (node["metadata"].get("labels") or {}).items())
