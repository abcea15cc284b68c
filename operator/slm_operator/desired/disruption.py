"""The PodDisruptionBudget: a drain of nodes takes one replica at a time."""

from typing import Any

from slm_operator.crd.names import selector
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child


def disruption_budget(resource: SLMDeployment) -> dict[str, Any] | None:
    """None where there is never more than one replica: it could only be in the way of a drain for ever."""
    wanted = resource.spec.autoscaling
    most = resource.replicas if wanted is None or resource.spec.suspend else wanted.max
    if most < 2:
        return None
    return {
        **child(resource, "policy/v1", "PodDisruptionBudget", resource.name),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(resource.name)},
            # A pod that serves nobody must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
