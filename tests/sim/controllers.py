"""What the cluster does by itself: garbage collection, Deployments, Jobs, scheduling, and pods that run.

Each call of `step` moves everything one state on, so that a test sees, and can disturb, each of them. A pod
goes Pending, fetching, loading, ready; a Job's pod ends with the report of what it read.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from slm_contract.places import CONFIG_ENV
from slm_contract.report import Acceleration, FetchReport, ModelFacts, Performance, RuntimeReport
from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.loop import wall_clock

FACTS = ModelFacts(
    file_name="model.gguf",
    size_bytes=98_000_000,
    sha256="0" * 64,
    architecture="llama",
    name="Model",
    quantization="Q4_1",
    parameter_count=135_000_000,
    weights_bytes=97_000_000,
    context_length=2048,
    block_count=30,
    embedding_length=576,
    feed_forward_length=1536,
    head_count=9,
    kv_heads=(3,) * 30,
    key_length=64,
    value_length=64,
    vocab_size=49152,
)


@dataclass
class Controllers:
    """Everything in a cluster that isn't the operator."""

    cluster: MemoryCluster
    starts: dict[str, int] = field(default_factory=dict)
    """Pods made for each Deployment, by its name."""

    _rested_at: int = -1

    def step(self) -> None:
        """One state on; nothing where nothing has changed since a step that found nothing to do."""
        revision = self.cluster.revision
        if revision == self._rested_at:
            return
        self.collect_garbage()
        self._release_claims()
        for ref, deployment in self.cluster.of("Deployment"):
            self._roll(ref, deployment)
        for ref, job in self.cluster.of("Job"):
            self._run_job(ref, job)
        self._rested_at = revision if self.cluster.revision == revision else -1

    def collect_garbage(self) -> None:
        """Until nothing has an owner that is gone."""
        while True:
            alive = {document["metadata"]["uid"] for document in self.cluster.objects.values()}
            orphans = [
                ref
                for ref, document in self.cluster.objects.items()
                if (owners := document["metadata"].get("ownerReferences"))
                and "deletionTimestamp" not in document["metadata"]
                and not any(owner["uid"] in alive for owner in owners)
            ]
            if not orphans:
                break
            for ref in orphans:
                self.cluster.remove(ref, by="gc")
            self._release_claims()

    def _release_claims(self) -> None:
        """A claim that is being deleted goes when no pod has it any more."""
        used = {
            (ref.namespace, volume["persistentVolumeClaim"]["claimName"])
            for ref, pod in self.cluster.of("Pod")
            for volume in pod["spec"].get("volumes") or ()
            if "persistentVolumeClaim" in volume
        }
        for ref, claim in self.cluster.of("PersistentVolumeClaim"):
            if "deletionTimestamp" in claim["metadata"] and (ref.namespace, ref.name) not in used:
                self.cluster.change(
                    ref, lambda document: document["metadata"].pop("finalizers"), by="controller"
                )

    def _roll(self, ref: Ref, deployment: Doc) -> None:
        spec = deployment["spec"]
        wanted = spec["replicas"]
        digest = sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:8]
        pods = self._pods_of(deployment)
        current = [pod for pod in pods if pod[1]["metadata"]["labels"]["pod-template-hash"] == digest]
        old = [pod for pod in pods if pod not in current]
        if spec.get("strategy", {}).get("type") == "Recreate" and old:
            for pod, _ in old:
                self.cluster.remove(pod, by="controller")
        else:
            for number in range(wanted):
                name = f"{ref.name}-{digest}-{number}"
                if Ref("Pod", ref.namespace, name) not in self.cluster.objects:
                    self.starts[ref.name] = self.starts.get(ref.name, 0) + 1
                    self._start(ref, deployment, name, spec["template"], digest)
        for pod, document in current:
            if int(pod.name.rpartition("-")[2]) >= wanted:
                self.cluster.remove(pod, by="controller")
            else:
                self._advance(pod, document)
        updated = [pod for pod, _ in current if pod in self.cluster.objects]
        if sum(map(self._is_ready, updated)) >= wanted:
            for pod, _ in old:
                if pod in self.cluster.objects:
                    self.cluster.remove(pod, by="controller")
        self._report_deployment(ref, deployment, len(updated))

    def _start(self, owner: Ref, document: Doc, name: str, template: Doc, digest: str) -> None:
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

    def _advance(self, ref: Ref, pod: Doc) -> None:
        status = pod["status"]
        if status["phase"] == "Pending" and "podIP" not in status:
            if not self._fits(pod):
                self._set_status(ref, {"phase": "Pending", "conditions": [self._unscheduled()]})
            elif not self._secrets_exist(ref, pod):
                waiting = {
                    "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no Secret"}}
                }
                status = {"phase": "Pending", "conditions": [self._scheduled()]}
                self._set_status(ref, {**status, "containerStatuses": [{"name": "serve", **waiting}]})
            else:
                self._set_status(
                    ref, {"phase": "Pending", "podIP": _address(ref), "conditions": [self._scheduled()]}
                )
        elif status["phase"] == "Pending":
            report = FetchReport(command="fetch", model=FACTS, seconds=1.0)
            done = {"terminated": {"exitCode": 0, "reason": "Completed", "message": report.to_json()}}
            self._set_status(
                ref,
                {
                    **status,
                    "phase": "Running",
                    "initContainerStatuses": [
                        {"name": "fetch", "ready": True, "restartCount": 0, "state": done}
                    ],
                    "containerStatuses": [{"name": "serve", "ready": False, "restartCount": 0, "state": {}}],
                    "conditions": [self._scheduled(), _condition("Ready", "False")],
                },
            )
        elif not self._is_ready(ref):
            self._set_status(
                ref,
                {
                    **status,
                    "containerStatuses": [
                        {"name": "serve", "ready": True, "restartCount": 0, "state": {"running": {}}}
                    ],
                    "conditions": [self._scheduled(), _condition("Ready", "True")],
                },
            )

    def _run_job(self, ref: Ref, job: Doc) -> None:
        name = f"{ref.name}-0"
        pod = Ref("Pod", ref.namespace, name)
        if (job.get("status") or {}).get("succeeded"):
            return
        if pod not in self.cluster.objects:
            self._start(ref, job, name, job["spec"]["template"], "job")
            return
        names = [container["name"] for container in job["spec"]["template"]["spec"]["containers"]]
        command = "inspect" if "inspect" in json.dumps(job["spec"]["template"]["spec"]) else "fetch"
        report = FetchReport(command=command, model=FACTS, seconds=1.0)  # type: ignore[arg-type]
        done = {"terminated": {"exitCode": 0, "reason": "Completed", "message": report.to_json()}}
        statuses = [{"name": each, "ready": False, "restartCount": 0, "state": done} for each in names]
        self._set_status(
            pod, {"phase": "Succeeded", "containerStatuses": statuses, "conditions": [self._scheduled()]}
        )
        complete = {"succeeded": 1, "conditions": [_condition("Complete", "True")]}
        self._set_status(ref, complete)

    def _report_deployment(self, ref: Ref, deployment: Doc, updated: int) -> None:
        pods = self._pods_of(deployment)
        ready = sum(self._is_ready(pod) for pod, _ in pods)
        complete = ready >= deployment["spec"]["replicas"] and updated == len(pods)
        self._set_status(
            ref,
            {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": len(pods),
                "updatedReplicas": updated,
                "readyReplicas": ready,
                "availableReplicas": ready,
                "unavailableReplicas": max(0, deployment["spec"]["replicas"] - ready),
                "conditions": [
                    _condition("Available", "True" if ready else "False"),
                    {
                        **_condition("Progressing", "True"),
                        "reason": "NewReplicaSetAvailable" if complete else "Updating",
                    },
                ],
            },
        )

    def _set_status(self, ref: Ref, status: Doc) -> None:
        def change(document: Doc) -> None:
            before = (document.get("status") or {}).get("conditions") or ()
            since = {(each["type"], each["status"]): each["lastTransitionTime"] for each in before}
            for each in status.get("conditions") or ():
                key = (each["type"], each["status"])
                each["lastTransitionTime"] = since.get(key, each["lastTransitionTime"])
            document["status"] = status

        self.cluster.change(ref, change, by="controller")

    def _pods_of(self, owner: Doc) -> list[tuple[Ref, Doc]]:
        uid = owner["metadata"]["uid"]
        return [
            (ref, pod)
            for ref, pod in self.cluster.of("Pod")
            if any(each["uid"] == uid for each in pod["metadata"].get("ownerReferences", ()))
        ]

    def _is_ready(self, ref: Ref) -> bool:
        conditions = self.cluster.objects[ref]["status"].get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _secrets_exist(self, ref: Ref, pod: Doc) -> bool:
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume, *volume.get("projected", {}).get("sources", ())):
                secret = source.get("secret") or {}
                name = secret.get("secretName") or secret.get("name")
                if name is None or secret.get("optional"):
                    continue
                live = self.cluster.objects.get(Ref("Secret", ref.namespace, name))
                entries = {} if live is None else {**live.get("data", {}), **live.get("stringData", {})}
                if live is None or any(each["key"] not in entries for each in secret.get("items", ())):
                    return False
        return True

    def _fits(self, pod: Doc) -> bool:
        selector = pod["spec"].get("nodeSelector") or {}
        wanted: dict[str, Any] = {}
        for container in pod["spec"]["containers"]:
            wanted |= (container.get("resources") or {}).get("limits") or {}
        extended = [name for name in wanted if "/" in name]
        return any(
            all((node["metadata"].get("labels") or {}).get(key) == value for key, value in selector.items())
            and all(name in node["status"]["allocatable"] for name in extended)
            for _, node in self.cluster.of("Node")
        )

    def _scheduled(self) -> Doc:
        return _condition("PodScheduled", "True")

    def _unscheduled(self) -> Doc:
        message = "0/1 nodes are available: 1 Insufficient"
        return {**_condition("PodScheduled", "False"), "reason": "Unschedulable", "message": message}

    def report(self, address: str) -> bytes | None:
        """What a pod's `/report` answers."""
        for ref, pod in self.cluster.of("Pod"):
            if pod["status"].get("podIP") != address:
                continue
            ready = self._is_ready(ref)
            environment = {
                variable["name"]: variable.get("value")
                for container in pod["spec"]["containers"]
                for variable in container.get("env") or ()
            }
            config = json.loads(environment.get(CONFIG_ENV) or "{}")
            return (
                RuntimeReport(
                    command="serve",
                    phase="Ready" if ready else "Loading",
                    model=FACTS,
                    context_length=config.get("contextLength") or 2048,
                    acceleration=Acceleration(hardware_class="cpu", device="cpu (2 threads)", provider="cpu"),
                    performance=Performance(
                        load_seconds=1.0,
                        first_token_ms=200.0,
                        tokens_per_second=58.0,
                        measured_at=datetime(2026, 1, 1, tzinfo=UTC),
                    )
                    if ready
                    else None,
                )
                .to_json()
                .encode()
            )
        return None


def _address(ref: Ref) -> str:
    digest = sha256(str(ref).encode()).digest()
    return f"10.{digest[0]}.{digest[1]}.{digest[2]}"


def _condition(kind: str, status: str) -> Doc:
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": wall_clock().replace(microsecond=0).isoformat().replace("+00:00", "Z"),
    }
