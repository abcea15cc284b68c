"""What kind is told of a cluster, and the files that its node shares with this machine."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.controlplane import AUDIT_POLICY, NEVER_ROTATED_MIB

PORTS = range(31000, 31016)
"""Ports of the node that are published on this machine's loopback, each under a free one."""
SHARED = "control-plane"
AUDIT_LOG = f"{SHARED}/audit.log"
IN_NODE = f"/{SHARED}"
STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
REQUESTS = {"cpu": "10m"}
"""kubeadm reserves most of one CPU for them; a machine of two would have little left for models."""


def write(folder: Path, node_image: str, workers: int = 0) -> Path:
    """Write the configuration, and what the node shares with this machine, into *folder*."""
    shared = folder / SHARED
    (shared / "patches").mkdir(parents=True, exist_ok=True)
    (shared / "policy.json").write_text(json.dumps(AUDIT_POLICY))
    for target, patch in patches().items():
        (shared / "patches" / f"{target}+strategic.json").write_text(json.dumps(patch))
    path = folder / "kind.json"
    path.write_text(json.dumps(config(node_image, shared, workers)))
    return path


def patches() -> dict[str, Any]:
    """PURE: what kubeadm changes of its own manifests, by its name for each."""
    small = {name: _requests(name) for name in STATIC_PODS}
    dns = {"spec": {"replicas": 1, "template": _requests("coredns")}}
    return {**small, "corednsdeployment": dns}


def _requests(container: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": container, "resources": {"requests": REQUESTS}}]}}


def config(node_image: str, shared: Path, workers: int = 0) -> dict[str, Any]:
    """PURE: a node of *node_image* whose API server logs into the folder *shared*, and *workers* beside it."""
    api_server = {
        "extraArgs": {
            "audit-policy-file": f"{IN_NODE}/policy.json",
            "audit-log-path": f"{IN_NODE}/audit.log",
            "audit-log-mode": "blocking",  # a finished request is always in the log
            "audit-log-maxsize": str(NEVER_ROTATED_MIB),
        },
        "extraVolumes": [
            {"name": SHARED, "hostPath": IN_NODE, "mountPath": IN_NODE, "pathType": "Directory"}
        ],
    }
    node = {
        "role": "control-plane",
        "image": node_image,
        "extraPortMappings": [{"containerPort": port, "listenAddress": "127.0.0.1"} for port in PORTS],
        "extraMounts": [{"hostPath": str(shared), "containerPath": IN_NODE}],
    }
    kubeadm = (
        {"kind": "ClusterConfiguration", "apiServer": api_server},
        {"kind": "InitConfiguration", "patches": {"directory": f"{IN_NODE}/patches"}},
    )
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "featureGates": {"ImageVolume": True},  # beta in 1.34, off by default
        "kubeadmConfigPatches": [json.dumps(patch) for patch in kubeadm],
        "nodes": [node, *({"role": "worker", "image": node_image} for _ in range(workers))],
    }
