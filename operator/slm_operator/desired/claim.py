"""The PersistentVolumeClaim that keeps the model, where the spec asks for one of its own."""

from typing import Any

from slm_operator.crd.names import claim_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.inputs import child, uses_claim


def model_claim(resource: SLMDeployment) -> dict[str, Any] | None:
    cache = resource.spec.cache
    if not uses_claim(cache) or cache.claim_name is not None:
        return None
    spec: dict[str, Any] = {
        "accessModes": list(cache.access_modes),
        "resources": {"requests": {"storage": str(cache.size)}},
    }
    if cache.storage_class_name is not None:
        spec["storageClassName"] = cache.storage_class_name
    return {**child(resource, "v1", "PersistentVolumeClaim", claim_name(resource.name)), "spec": spec}
