"""A model in a claim: pulled once by a Job, found there by every pod after that."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.site import SMOLLM2, SMOLLM2_SHA256, Namespace, Site

pytestmark = pytest.mark.e2e

CLASS = "e2e-static"
FOLDER = "/var/lib/slm-e2e-cache"


@pytest.fixture
def volume(site: Site) -> Iterator[None]:
    """A volume of the node's own disk that pods of any user may write, as an administrator would prepare it."""
    node = site.cluster.node_name
    prepare = {
        "restartPolicy": "Never",
        "nodeName": node,
        "containers": [
            {
                "name": "prepare",
                "image": site.runtime_image,
                "command": ["python", "-c", "import os; os.chmod('/volume', 0o777)"],
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


def fetched(ns: Namespace, name: str) -> dict[str, object]:
    """What the fetch of the one serving pod said at its end."""
    (pod,) = ns.pods(name)
    (container,) = pod["status"]["initContainerStatuses"]
    report: dict[str, object] = json.loads(container["state"]["terminated"]["message"])
    return report


@pytest.mark.usefixtures("volume")
def test_a_claim_is_filled_once(site: Site) -> None:
    with site.namespace("cache") as ns:
        ns.apply(
            "cached",
            {
                "model": {"name": "smollm2-135m", "source": SMOLLM2, "sha256": SMOLLM2_SHA256},
                "runtime": {"contextLength": 512, "parallel": 1},
                "cache": {"mode": "PVC", "size": "1Gi", "storageClassName": CLASS},
            },
        )
        ns.wait_ready("cached")
        (claim,) = site.list("persistentvolumeclaims", ns.name)
        assert claim["status"]["phase"] == "Bound"
        assert fetched(ns, "cached")["cached"] is True, "the Job had pulled it before"
        (before,) = ns.pods("cached")
        site.kubectl("delete", "pod", before["metadata"]["name"], "-n", ns.name)
        ns.wait_ready("cached")
        assert fetched(ns, "cached")["cached"] is True
        with ns.client("cached") as client:
            assert client.models.list().data[0].id == "smollm2-135m"
