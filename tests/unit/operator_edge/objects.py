"""Small objects for the tests of the operator's edges."""

from typing import Any

from slm_operator.crd import names
from slm_operator.settings import HardwareClass, Settings
from slm_operator.store import Key

KEY = Key("demo", "a")
SETTINGS = Settings(runtime_image="runtime:1", classes=(HardwareClass(name="cpu", family="cpu"),))


def slm(version: int, generation: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "name": "a",
            "namespace": "demo",
            "uid": "uid-a",
            "resourceVersion": str(version),
            "generation": generation,
        },
        "spec": {"model": {"source": "pypi://p@1/f"}},
        **more,
    }


def child(kind: str, version: int, *, owner: str | None = "uid-a", **more: Any) -> dict[str, Any]:
    groups = {"Deployment": "apps/v1", "Job": "batch/v1", "PodDisruptionBudget": "policy/v1"}
    api_version = groups.get(kind, "v1")
    metadata: dict[str, Any] = {
        "name": "a",
        "namespace": "demo",
        "uid": f"uid-{kind}",
        "resourceVersion": str(version),
        "labels": names.labels("a"),
    }
    if owner:
        metadata["ownerReferences"] = [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": "a",
                "uid": owner,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def node(version: int, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n", "resourceVersion": str(version), "labels": {"disk": "fast"}},
        "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "2"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "now"}],
            "images": [{"names": ["x"], "sizeBytes": 1}],
        },
        **more,
    }
