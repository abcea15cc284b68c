"""Scheduler, volumes and kubelet: what becomes of a pod, one state a step.

A pod goes pending, fetching, loading, ready; a Job's ends with the report of what it read. What only one may have is really
held: a device until the pod is gone, a volume of ReadWriteOnce by one node, one of ReadWriteOncePod by one pod.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from slm_contract.retention import Removed
from slm_operator.crd.quantities import parse_quantity
from tests.sim import played
from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.loop import wall_clock
from tests.sim.played import Fate
from tests.sim.volumes import Volumes, folder

KUBELET = "kubelet"
"""A finalizer that stands for the grace period: a pod holds what it has until its containers have ended."""


@dataclass
class Pods:
    cluster: MemoryCluster
    quota: int | None = None
    """How many pods a namespace may have."""
    volumes: Volumes = field(default_factory=Volumes)

    def start(self, owner: Ref, document: Doc, name: str, template: Doc, digest: str) -> bool:
        """Make one; False where the quota forbids it."""
        there = sum(ref.namespace == owner.namespace for ref, _ in self.cluster.of("Pod"))
        if self.quota is not None and there >= self.quota:
            return False
        metadata = template["metadata"]
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": owner.namespace,
                    "labels": {**metadata["labels"], "pod-template-hash": digest},
                    "annotations": dict(metadata.get("annotations") or {}),
                    "finalizers": [KUBELET],
                    "ownerReferences": [
                        {
                            "apiVersion": document["apiVersion"],
                            "kind": owner.kind,
                            "name": owner.name,
                            "uid": document["metadata"]["uid"],
                            "controller": True,
                        }
                    ],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending"},
            },
            by="controller",
        )
        return True

    def end(self) -> None:
        """Those that are going are gone, and what they held is free."""
        for ref, pod in self.cluster.of("Pod"):
            if is_going(pod):
                self.cluster.change(ref, lambda each: each["metadata"].pop("finalizers"), by=KUBELET)
        used = {(ref.namespace, name) for ref, pod in self.cluster.of("Pod") for name in claims_of(pod)}
        for ref, claim in self.cluster.of("PersistentVolumeClaim"):
            if is_going(claim) and (ref.namespace, ref.name) not in used:
                self.cluster.change(ref, lambda each: each["metadata"].pop("finalizers"), by="controller")

    def of(self, owner: Doc) -> list[tuple[Ref, Doc]]:
        uid = owner["metadata"]["uid"]
        return [
            (ref, pod)
            for ref, pod in self.cluster.of("Pod")
            if any(each["uid"] == uid for each in pod["metadata"].get("ownerReferences", ()))
        ]

    def advance(self, ref: Ref, pod: Doc) -> None:
        """One state on."""
        status = pod["status"]
        if is_going(pod) or status["phase"] == "Succeeded":
            return
        if "podIP" not in status:
            self._place(ref, pod)
        elif "initContainers" not in pod["spec"]:
            self._run_once(ref, pod)
        elif status["phase"] == "Pending":
            self._fetch(ref, pod)
        elif not is_ready(pod):
            self._serve(ref, pod)

    def set_status(self, ref: Ref, status: Doc, **spec: Any) -> None:
        """A condition whose status stays keeps its time."""

        def change(document: Doc) -> None:
            before = (document.get("status") or {}).get("conditions") or ()
            since = {(each["type"], each["status"]): each["lastTransitionTime"] for each in before}
            for each in status.get("conditions") or ():
                key = (each["type"], each["status"])
                each["lastTransitionTime"] = since.get(key, each["lastTransitionTime"])
            document["status"] = status
            document["spec"].update(spec)

        self.cluster.change(ref, change, by="controller")

    # A node, and what has to be there before containers start.

    def _place(self, ref: Ref, pod: Doc) -> None:
        node = pod["spec"].get("nodeName") or self._node(ref, pod)
        if node is None:
            words = {"reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient"}
            refused = {**condition("PodScheduled", "False"), **words}
            self.set_status(ref, {"phase": "Pending", "conditions": [refused]})
            return
        status: Doc = {"phase": "Pending", "conditions": [condition("PodScheduled", "True")]}
        if self._mounted(ref, pod, node):
            status["podIP"] = _address(ref)
        else:
            status["conditions"].append(condition("PodReadyToStartContainers", "False"))
        self.set_status(ref, status, nodeName=node)

    def _node(self, ref: Ref, pod: Doc) -> str | None:
        """The emptiest of the nodes that would do."""
        others = [(each, other) for each, other in self.cluster.of("Pod") if each != ref and _holds(other)]
        if any(
            self._modes(ref, claim) == ["ReadWriteOncePod"] and claim in claims_of(other)
            for claim in claims_of(pod)
            for each, other in others
            if each.namespace == ref.namespace
        ):
            return None
        terms = _neighbours_wanted(pod, [other for _, other in others])
        by_node: dict[str, list[Doc]] = {}
        for _, other in others:
            by_node.setdefault(other["spec"]["nodeName"], []).append(other)
        fitting = [
            (len(by_node.get(each.name, ())), each.name)
            for each, node in self.cluster.of("Node")
            if _fits(pod, node, by_node.get(each.name, []), terms)
        ]
        return min(fitting, default=(0, None))[1]

    def _mounted(self, ref: Ref, pod: Doc, node: str) -> bool:
        """Whether all that it mounts is there, for it, on its node; a claim is bound where it is first used."""
        claims = [Ref("PersistentVolumeClaim", ref.namespace, name) for name in claims_of(pod)]
        if not self._configured(ref, pod) or not all(each in self.cluster.objects for each in claims):
            return False
        for claim in claims:
            elsewhere = any(
                claim.name in claims_of(other) and other["spec"]["nodeName"] != node
                for each, other in self.cluster.of("Pod")
                if each != ref and each.namespace == ref.namespace and _holds(other)
            )
            if elsewhere and not {"ReadWriteMany", "ReadOnlyMany"} & set(self._modes(ref, claim.name)):
                return False
            if (self.cluster.objects[claim].get("status") or {}).get("phase") != "Bound":
                self._bind(claim, node)
        return True

    def _bind(self, claim: Ref, node: str) -> None:
        def bind(document: Doc) -> None:
            annotations = document["metadata"].setdefault("annotations", {})
            annotations["volume.kubernetes.io/selected-node"] = node
            document["spec"]["volumeName"] = f"pv-{claim.name}"
            document["status"] = {
                "phase": "Bound",
                "capacity": dict(document["spec"]["resources"]["requests"]),
            }

        self.cluster.change(claim, bind, by="kube-controller-manager")

    def _modes(self, ref: Ref, claim: str) -> list[str]:
        live = self.cluster.objects.get(Ref("PersistentVolumeClaim", ref.namespace, claim))
        return [] if live is None else list(live["spec"]["accessModes"])

    def _configured(self, ref: Ref, pod: Doc) -> bool:
        """Whether every Secret and ConfigMap that it mounts is there, with the entries that it names."""
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume, *volume.get("projected", {}).get("sources", ())):
                for kind, key in (("Secret", "secret"), ("ConfigMap", "configMap")):
                    mounted = source.get(key) or {}
                    name = mounted.get("secretName") or mounted.get("name")
                    if name is None or mounted.get("optional"):
                        continue
                    live = self.cluster.objects.get(Ref(kind, ref.namespace, name))
                    entries = {} if live is None else {**live.get("data", {}), **live.get("stringData", {})}
                    if live is None or any(each["key"] not in entries for each in mounted.get("items", ())):
                        return False
        return True

    # Containers.

    def _fetch(self, ref: Ref, pod: Doc) -> None:
        status, end = pod["status"], played.fate(pod)
        before = (status.get("initContainerStatuses") or [{}])[0]
        waiting = {"name": main_of(pod), "ready": False, "restartCount": 0, "state": {"waiting": {}}}
        if end is Fate.NO_IMAGE:
            fetch = played.not_pulled("fetch", pod["spec"]["initContainers"][0]["image"])
        elif end is Fate.CHECKSUM:
            fetch = played.mismatch("fetch", "fetch", before)
        else:
            self._bring(ref, pod)
            fetch, waiting["state"] = {**played.read("fetch", "fetch"), "ready": True}, {}
        failed = end in {Fate.NO_IMAGE, Fate.CHECKSUM}
        changed = {
            **status,
            "phase": "Pending" if failed else "Running",
            "initContainerStatuses": [fetch],
            "containerStatuses": [waiting, *_sidecars(pod)],
            "conditions": [condition("PodScheduled", "True"), condition("Ready", "False")],
        }
        self.set_status(ref, changed)

    def _serve(self, ref: Ref, pod: Doc) -> None:
        status, main = pod["status"], main_of(pod)
        end = played.fate(pod) if main == "serve" else Fate.SERVES
        before = next(each for each in status["containerStatuses"] if each["name"] == main)
        ready = end is Fate.SERVES
        if end in {Fate.CRASHES, Fate.KILLED}:
            serve = played.ended(main, end, before)
        else:
            serve = {"name": main, "ready": ready, "restartCount": 0, "state": {"running": {}}}
        changed = {
            **status,
            "containerStatuses": [serve, *_sidecars(pod)],
            "conditions": [
                condition("PodScheduled", "True"),
                condition("Ready", "True" if ready else "False"),
            ],
        }
        self.set_status(ref, changed)

    def _run_once(self, ref: Ref, pod: Doc) -> None:
        """A Job's: it reads a model, of all of it where it fetches."""
        (container, *_) = pod["spec"]["containers"]
        name, command, end = container["name"], container["command"][1], played.fate(pod)
        before = (pod["status"].get("containerStatuses") or [{}])[0]
        if end is Fate.NO_IMAGE:
            done = played.not_pulled(name, container["image"])
        elif end is Fate.CHECKSUM and command == "fetch":
            done = played.mismatch(name, command, before)
        else:
            done = played.read(name, command, self._bring(ref, pod) if command == "fetch" else None)
        phase = "Succeeded" if "terminated" in done["state"] else "Pending"
        changed = {
            **pod["status"],
            "phase": phase,
            "containerStatuses": [done],
            "conditions": [condition("PodScheduled", "True")],
        }
        self.set_status(ref, changed)

    def _bring(self, ref: Ref, pod: Doc) -> Removed | None:
        """The model to where it outlives the pod, where there is such a place; what had to go for it."""
        removed = None
        for place in places_of(ref, pod):
            held = {
                folder(other)
                for each, other in self.cluster.of("Pod")
                if place in places_of(each, other) and is_ready(other)
            }
            removed = self.volumes.fetch(place, pod, held)
        return removed

    def report(self, address: str) -> bytes | None:
        """What a pod's `/report` answers."""
        for _, pod in self.cluster.of("Pod"):
            if pod["status"].get("podIP") == address and not is_going(pod):
                statuses = pod["status"].get("containerStatuses") or ()
                runs = any(each["name"] == "serve" and "waiting" not in each["state"] for each in statuses)
                return played.runtime_report(pod, ready=is_ready(pod)) if runs else None
        return None


def is_ready(pod: Doc) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_going(document: Doc) -> bool:
    return "deletionTimestamp" in document["metadata"]


def condition(kind: str, status: str) -> Doc:
    now = wall_clock().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return {"type": kind, "status": status, "lastTransitionTime": now}


def _holds(pod: Doc) -> bool:
    """Whether it has a node, and what it asked for there."""
    return "nodeName" in pod["spec"] and pod["status"]["phase"] not in {"Succeeded", "Failed"}


def claims_of(pod: Doc) -> list[str]:
    return [
        each["persistentVolumeClaim"]["claimName"]
        for each in pod["spec"].get("volumes") or ()
        if "persistentVolumeClaim" in each
    ]


def places_of(ref: Ref, pod: Doc) -> list[Ref]:
    """Where its model lies for others too: a claim, or the directory that its namespace has of its node."""
    claims = [Ref("PersistentVolumeClaim", ref.namespace, name) for name in claims_of(pod)]
    on_node = any("hostPath" in each for each in pod["spec"].get("volumes") or ())
    return [*claims, *([Ref("Directory", ref.namespace, pod["spec"].get("nodeName", ""))] if on_node else [])]


def main_of(pod: Doc) -> str:
    """The container of ours that runs as long as the pod."""
    return next(each["name"] for each in pod["spec"]["containers"] if each["name"] in {"serve", "hold"})


def _sidecars(pod: Doc) -> Iterator[Doc]:
    """What a webhook has put beside ours: it waits for nothing and nobody."""
    for each in pod["spec"]["containers"]:
        if each["name"] != main_of(pod):
            yield {"name": each["name"], "ready": True, "restartCount": 0, "state": {"running": {}}}


def _neighbours_wanted(pod: Doc, others: list[Doc]) -> list[Doc]:
    """Labels of the pods beside which it must run; the first of those that shall be beside each other goes anywhere."""
    affinity = (pod["spec"].get("affinity") or {}).get("podAffinity") or {}
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    wanted = [term["labelSelector"]["matchLabels"] for term in terms]
    alone = all(
        each.items() <= pod["metadata"]["labels"].items()
        and not any(each.items() <= other["metadata"]["labels"].items() for other in others)
        for each in wanted
    )
    return [] if alone else wanted


def _fits(pod: Doc, node: Doc, there: list[Doc], neighbours: list[Doc]) -> bool:
    selector, labels = pod["spec"].get("nodeSelector") or {}, node["metadata"].get("labels") or {}
    if not selector.items() <= labels.items():
        return False
    for wanted in neighbours:
        if not any(wanted.items() <= other["metadata"]["labels"].items() for other in there):
            return False
    return all(
        count + sum(_wants(other).get(name, 0) for other in there)
        <= parse_quantity(node["status"]["allocatable"].get(name, "0"))
        for name, count in _wants(pod).items()
    )


def _wants(pod: Doc) -> dict[str, Any]:
    """Devices and memory."""
    wanted: dict[str, Any] = {}
    for container in pod["spec"]["containers"]:
        requests = (container.get("resources") or {}).get("requests") or {}
        for name, count in requests.items():
            if "/" in name or name == "memory":
                wanted[name] = wanted.get(name, 0) + parse_quantity(count)
    return wanted


def _address(ref: Ref) -> str:
    digest = sha256(str(ref).encode()).digest()
    return f"10.{digest[0]}.{digest[1]}.{digest[2]}"
