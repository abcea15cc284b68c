"""The PersistentVolumeClaim that keeps the model, where the spec asks for one of its own."""

from collections.abc import Mapping
from typing import Any

from slm_operator.crd.names import claim_name
from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.pod.volumes import uses_claim
from slm_operator.snapshot import ChildRef, Document

CLAIM = "PersistentVolumeClaim"


def model_claim(resource: SLMDeployment, children: Mapping[ChildRef, Document]) -> dict[str, Any] | None:
    """None where the model is kept elsewhere. A claim can't shrink: one that is larger than asked for stays so."""
    cache = resource.spec.cache
    if not uses_claim(cache) or cache.claim_name is not None:
        return None
    name = claim_name(resource.name)
    spec: dict[str, Any] = {
        "accessModes": list(cache.access_modes),
        "resources": {"requests": {"storage": _size(str(cache.size), children.get(ChildRef(CLAIM, name)))}},
    }
    if cache.storage_class_name is not None:
        spec["storageClassName"] = cache.storage_class_name
    return {**child(resource, "v1", CLAIM, name), "spec": spec}


def _size(asked: str, live: Document | None) -> str:
    if live is None:
        return asked
    has = str(live["spec"].get("resources", {}).get("requests", {}).get("storage", asked))
    return has if parse_quantity(has) > parse_quantity(asked) else asked
