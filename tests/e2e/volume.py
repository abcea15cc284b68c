"""A volume of the node's own disk, as an administrator would prepare it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.e2e.site import Site

CLASS: Final = "e2e-static"
FOLDER: Final = "/var/lib/slm-e2e-cache"


@contextmanager
def static_volume(site: Site) -> Iterator[None]:
    """A PersistentVolume of the class :data:`CLASS` that pods of any user may write."""
    node = site.cluster.node_name
    prepare = {
        "restartPolicy": "Never",
        "nodeName": node,
        "containers": [
            {
                "name": "prepare",
                "image": site.runtime_image,
                "command": [
                    "sh",
                    "-c",
                    "rm -rf /volume/* && chmod 0777 /volume",
                ],
                "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
                "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
            }
        ],
        "volumes": [{"name": "volume", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}],
    }
    affinity = {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
        ]
    }
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": CLASS,
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": FOLDER},
        "nodeAffinity": {"required": affinity},
    }
    objects = [
        {"kind": "Pod", "metadata": {"name": "prepare-volume", "namespace": "kube-system"}, "spec": prepare},
        {"kind": "PersistentVolume", "metadata": {"name": CLASS}, "spec": volume},
    ]
    items = [{"apiVersion": "v1", **each} for each in objects]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    site.kubectl("apply", "-f", "-", input=manifest)
    done = "--for=jsonpath={.status.phase}=Succeeded"
    site.kubectl("wait", "pod/prepare-volume", "-n", "kube-system", done, "--timeout=60s")
    yield
    site.kubectl("delete", "pod/prepare-volume", "-n", "kube-system")
    site.kubectl("delete", f"pv/{CLASS}")
