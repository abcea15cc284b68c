"""What kind is told of a cluster, and the files that its node shares with this machine."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.controlplane import AUDIT_POLICY, NEVER_ROTATED_MIB

PORTS = range(31000, 31016)
"""Ports of the node that are published on this machine's loopback, each under a free one."""
AUDIT = "audit"
AUDIT_LOG = f"{AUDIT}/audit.log"
AUDIT_IN_NODE = "/audit"


def write(folder: Path, node_image: str) -> Path:
    """Write the configuration, and the folder for the audit log, into *folder*."""
    audit = folder / AUDIT
    audit.mkdir(parents=True, exist_ok=True)
    (audit / "policy.json").write_text(json.dumps(AUDIT_POLICY))
    path = folder / "kind.json"
    path.write_text(json.dumps(config(node_image, audit)))
    return path


def config(node_image: str, audit: Path) -> dict[str, Any]:
    """PURE: one node of *node_image*, whose API server logs into *audit*."""
    api_server = {
        "extraArgs": {
            "audit-policy-file": f"{AUDIT_IN_NODE}/policy.json",
            "audit-log-path": f"{AUDIT_IN_NODE}/audit.log",
            "audit-log-mode": "blocking",  # a finished request is always in the log
            "audit-log-maxsize": str(NEVER_ROTATED_MIB),
        },
        "extraVolumes": [
            {"name": AUDIT, "hostPath": AUDIT_IN_NODE, "mountPath": AUDIT_IN_NODE, "pathType": "Directory"}
        ],
    }
    node = {
        "role": "control-plane",
        "image": node_image,
        "extraPortMappings": [{"containerPort": port, "listenAddress": "127.0.0.1"} for port in PORTS],
        "extraMounts": [{"hostPath": str(audit), "containerPath": AUDIT_IN_NODE}],
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "featureGates": {"ImageVolume": True},  # beta in 1.34, off by default
        "kubeadmConfigPatches": [json.dumps({"kind": "ClusterConfiguration", "apiServer": api_server})],
        "nodes": [node],
    }
