"""The Service: one port for all clients. Probes, metrics and reports aren't on it."""

from typing import Any

from slm_operator.crd.names import selector
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child


def service(resource: SLMDeployment) -> dict[str, Any]:
    endpoint = resource.spec.endpoint
    return {
        **child(resource, "v1", "Service", resource.name),
        "spec": {
            "type": endpoint.type,
            "selector": selector(resource.name),
            "ports": [{"name": "http", "port": endpoint.port, "targetPort": "api", "protocol": "TCP"}],
        },
    }
