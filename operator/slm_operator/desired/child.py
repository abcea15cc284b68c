"""The head that every child has."""

from typing import Any

from slm_operator.crd.names import labels
from slm_operator.crd.resource import SLMDeployment


def child(
    resource: SLMDeployment, api_version: str, kind: str, name: str, component: str = "runtime"
) -> dict[str, Any]:
    """Names, labels, its owner. Nothing of the resource's own metadata is copied."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": resource.metadata.namespace,
            "labels": labels(resource.name, component),
            "ownerReferences": [resource.owner_reference],
        },
    }
