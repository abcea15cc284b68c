"""The ServiceMonitor: scrapes the operations port of the pods behind the Service, which doesn't offer it to clients."""

from typing import Any

from slm_contract import places
from slm_operator.crd.names import labels
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.settings import MonitoringSettings


def service_monitor(
    resource: SLMDeployment, settings: MonitoringSettings, *, served: bool
) -> dict[str, Any] | None:
    """None where nobody asks for it, or the cluster has no such kind."""
    wanted = resource.spec.observability.service_monitor
    if not wanted.enabled or not served:
        return None
    document = child(resource, "monitoring.coreos.com/v1", "ServiceMonitor", resource.name)
    document["metadata"]["labels"] = {
        **settings.labels,
        **wanted.labels,
        **document["metadata"]["labels"],
    }
    document["spec"] = {
        "selector": {"matchLabels": labels(resource.name)},
        "endpoints": [
            {"targetPort": places.OPS_PORT, "path": places.METRICS_PATH, "interval": wanted.interval}
        ],
    }
    return document
