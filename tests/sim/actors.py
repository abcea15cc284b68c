"""Other people and tools in the same cluster: strangers with our names, writers of our fields, webhooks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slm_operator.cluster import errors
from slm_operator.crd import names
from tests.sim.cases import DEPLOYMENT
from tests.sim.cluster import Doc, MemoryCluster, Ref, clone
from tests.sim.deployments import digest_of

THEIRS = Ref("ConfigMap", "demo", "theirs")
"""Owns some of the strangers' objects."""
GITOPS_LABEL = "argocd.argoproj.io/instance"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
LIKE_OURS = {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.INSTANCE_LABEL: "a"}
_VERSIONS = {
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
}
_CONTENT: dict[str, Doc] = {
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    "ConfigMap": {"data": {"ca.crt": "theirs"}},
    "Service": {"spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}}},
    "Secret": {"data": {"key": "dGhlaXJz"}},
    "Deployment": {
        "spec": {
            "paused": True,
            "replicas": 0,
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "c", "image": "theirs"}]},
            },
        }
    },
    "ServiceMonitor": {"spec": {"endpoints": []}},
    "PodDisruptionBudget": {
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "theirs"}}},
    },
}
_NAMES = {"PersistentVolumeClaim": "a-models", "ConfigMap": "a-ca", "Secret": "a-api-key"}
NAMED = [Ref(kind, "demo", _NAMES.get(kind, "a")) for kind in _CONTENT]


@dataclass
class Strangers:
    """Their objects come where the name is free, and each is as its owner wrote it last."""

    cluster: MemoryCluster
    there: dict[Ref, Doc] = field(default_factory=dict)

    def come(self, ref: Ref, labels: Doc, *, owned: bool) -> None:
        made = {"apiVersion": _VERSIONS.get(ref.kind, "v1"), "kind": ref.kind, **clone(_CONTENT[ref.kind])}
        made["metadata"] = {"name": ref.name, "namespace": ref.namespace, "labels": dict(labels)}
        if owned:
            owner = {"apiVersion": "v1", "kind": THEIRS.kind, "name": THEIRS.name, "controller": True}
            uid = self.cluster.objects[THEIRS]["metadata"]["uid"]
            made["metadata"]["ownerReferences"] = [{**owner, "uid": uid}]
        try:
            self.there[ref] = self.cluster.post(made, by="stranger")
        except errors.ExistsError:
            return

    def change(self, ref: Ref) -> None:
        def change(document: Doc) -> None:
            annotations = document["metadata"].setdefault("annotations", {})
            annotations["changed"] = str(int(annotations.get("changed", 0)) + 1)

        if ref in self.there:
            self.there[ref] = self.cluster.change(ref, change, by="stranger")

    def go(self, ref: Ref) -> None:
        if self.there.pop(ref, None) is not None:
            self.cluster.remove(ref, by="stranger")

    def check(self) -> None:
        """Whole, revision and owners of fields included."""
        for ref, document in self.there.items():
            assert self.cluster.objects.get(ref) == document, f"{ref} isn't as its owner wrote it"


def owner() -> Doc:
    metadata = {"name": THEIRS.name, "namespace": THEIRS.namespace}
    return {"apiVersion": "v1", "kind": THEIRS.kind, "metadata": metadata}


def is_ours(document: Doc | None) -> bool:
    owners = (document or {"metadata": {}})["metadata"].get("ownerReferences") or ()
    return any(each["kind"] == names.KIND for each in owners)


def label(cluster: MemoryCluster, ref: Ref) -> None:
    """A GitOps tool marks what it has seen."""
    if is_ours(cluster.objects.get(ref)):
        live = cluster.objects[ref]
        metadata = {"name": ref.name, "namespace": ref.namespace, "labels": {GITOPS_LABEL: "app"}}
        mark = {"apiVersion": live["apiVersion"], "kind": ref.kind, "metadata": metadata}
        cluster.apply_as(mark, by="argocd-controller", force=False)


def scale(cluster: MemoryCluster, replicas: int) -> None:
    """An autoscaler sets the Deployment's replicas, past the SLMDeployment."""
    if is_ours(live := cluster.objects.get(DEPLOYMENT)) and live["spec"]["replicas"] not in {0, replicas}:
        cluster.patch(DEPLOYMENT, {"spec": {"replicas": replicas}}, by="autoscaler")


def restart(cluster: MemoryCluster, moment: str) -> None:
    """`kubectl rollout restart`."""
    if is_ours(cluster.objects.get(DEPLOYMENT)):
        annotations = {"metadata": {"annotations": {RESTARTED: moment}}}
        cluster.patch(DEPLOYMENT, {"spec": {"template": annotations}}, by="kubectl-rollout")


def undo(cluster: MemoryCluster) -> None:
    """`kubectl rollout undo`: the template before the present one."""
    live = cluster.objects.get(DEPLOYMENT)
    if live is None or not is_ours(live):
        return
    present = digest_of(live["spec"]["template"])
    for event in reversed(cluster.history):
        same = event.ref == DEPLOYMENT and event.document["metadata"]["uid"] == live["metadata"]["uid"]
        if same and digest_of(before := event.document["spec"]["template"]) != present:
            cluster.change(
                DEPLOYMENT,
                lambda document, before=before: document["spec"].update(template=clone(before)),
                by="kubectl-rollout",
            )
            return


def rewrites_deployments(document: Doc) -> None:
    """A mutating webhook that has images come from the site's mirror."""
    if document["kind"] == "Deployment" and is_ours(document):
        _mirror(document["spec"]["template"]["spec"])


def rewrites_pods(document: Doc) -> None:
    if document["kind"] == "Pod":
        _mirror(document["spec"])


def injects_sidecars(document: Doc) -> None:
    """As a service mesh does."""
    if document["kind"] == "Pod" and "initContainers" in document["spec"]:
        containers = document["spec"]["containers"]
        if all(each["name"] != "mesh" for each in containers):
            containers.append({"name": "mesh", "image": "mesh:1"})


def _mirror(pod: Doc) -> None:
    for each in (*(pod.get("initContainers") or ()), *pod["containers"]):
        each["image"] = f"mirror/{each['image'].removeprefix('mirror/')}"


WEBHOOKS: dict[str, Callable[[Doc], None] | None] = {
    "none": None,
    "images of Deployments": rewrites_deployments,
    "images of pods": rewrites_pods,
    "sidecars": injects_sidecars,
}


def without_marks(value: Any) -> Any:
    """Without what tools have put beside ours."""
    if isinstance(value, list):
        return [without_marks(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: without_marks(each) for key, each in value.items() if key not in {GITOPS_LABEL, RESTARTED}}
