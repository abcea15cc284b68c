"""The Service: one port for all clients. Probes, metrics and reports aren't on it."""

from typing import Any

from slm_operator.crd.names import selector
from slm_operator.crd.podtemplate import OWN_PREFIX
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child


def service(resource: SLMDeployment) -> dict[str, Any]:
    endpoint = resource.spec.endpoint
    document = child(resource, "v1", "Service", resource.name)
    annotations = {key: each for key, each in endpoint.annotations.items() if not key.startswith(OWN_PREFIX)}
    if annotations:
        document["metadata"]["annotations"] = annotations
    document["spec"] = {
        "type": endpoint.type,
        "selector": selector(resource.name),
        "ports": [{"name": "http", "port": endpoint.port, "targetPort": "api", "protocol": "TCP"}],
    }
    if endpoint.type == "LoadBalancer":
        if endpoint.load_balancer_class is not None:
            document["spec"]["loadBalancerClass"] = endpoint.load_balancer_class
        if endpoint.load_balancer_source_ranges:
            document["spec"]["loadBalancerSourceRanges"] = list(endpoint.load_balancer_source_ranges)
    return document
