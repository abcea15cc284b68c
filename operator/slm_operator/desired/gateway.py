"""What a gateway of the cluster is told: an HTTPRoute, and the InferencePool that it may lead to."""

from collections.abc import Collection, Iterator
from typing import Any

from slm_contract import places
from slm_operator.crd.names import selector
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.settings import Settings

_POOLS = "inference.networking.k8s.io"


def routing(resource: SLMDeployment, settings: Settings, served: Collection[str]) -> Iterator[dict[str, Any]]:
    """Nothing where nobody asks for it, or the cluster lacks a kind that it takes."""
    wanted = resource.spec.endpoint.gateway
    if (
        wanted is None
        or not settings.gateways
        or not {"HTTPRoute", wanted.backend} - {"Service"} <= set(served)
    ):
        return
    backend: dict[str, Any] = {"name": resource.name, "port": resource.spec.endpoint.port}
    if wanted.backend == "InferencePool":
        backend = {"group": _POOLS, "kind": "InferencePool", "name": resource.name}
        yield _pool(resource)
    route = child(resource, "gateway.networking.k8s.io/v1", "HTTPRoute", resource.name)
    route["spec"] = {
        "parentRefs": [
            each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in wanted.parent_refs
        ],
        # An answer may take as long as it takes; the runtime has a deadline of its own for each request.
        "rules": [{"backendRefs": [backend], "timeouts": {"request": "0s"}}],
    }
    if wanted.hostnames:
        route["spec"]["hostnames"] = list(wanted.hostnames)
    yield route


def _pool(resource: SLMDeployment) -> dict[str, Any]:
    document = child(resource, f"{_POOLS}/v1", "InferencePool", resource.name)
    document["spec"] = {
        "selector": {"matchLabels": selector(resource.name)},
        "targetPorts": [{"number": places.API_PORT}],
    }
    gateway = resource.spec.endpoint.gateway
    picker = None if gateway is None else gateway.endpoint_picker_ref
    if picker is not None:
        document["spec"]["endpointPickerRef"] = {
            "name": picker.name,
            "port": {"number": picker.port},
            "failureMode": picker.failure_mode,
        }
    return document
