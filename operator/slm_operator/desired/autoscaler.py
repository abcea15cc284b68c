"""The autoscaler: KEDA's ScaledObject or a HorizontalPodAutoscaler, of the Deployment's replicas."""

from math import ceil
from typing import Any, Final

from slm_contract import metrics
from slm_contract.config import RuntimeConfig
from slm_operator.crd.autoscaling import Autoscaling
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.settings import AutoscalingSettings, Settings
from slm_operator.target.scaling import Means

POLL: Final = 15
"""Seconds between two looks, of KEDA and of Kubernetes alike."""
UNMEASURED: Final = 60.0
"""Seconds that a replica is taken to load for until one has."""
_CALM: Final = 300
"""Seconds that Kubernetes waits before it takes a replica away, unless told otherwise."""
_LONGEST_PERIOD: Final = 1800
_LONGEST_WINDOW: Final = 3600
_POD: Final = "[0-9a-z]{1,10}-[0-9a-z]{5}"
"""What a Deployment's pods have behind its name."""


def autoscaler(
    resource: SLMDeployment, settings: Settings, means: Means | None, load_seconds: float | None
) -> dict[str, Any] | None:
    """None where nobody asks for it, or nothing would carry it out."""
    wanted, site = resource.spec.autoscaling, settings.autoscaling
    if wanted is None or means is None or site is None:
        return None
    behavior = _behavior(load_seconds or UNMEASURED)
    if means is Means.KEDA:
        return _scaled_object(resource, wanted, site, behavior)
    document = child(resource, "autoscaling/v2", "HorizontalPodAutoscaler", resource.name)
    document["spec"] = {
        "scaleTargetRef": _target(resource),
        "minReplicas": max(wanted.min, 1),
        "maxReplicas": wanted.max,
        "metrics": [
            _metric(resource, means, name, average)
            for name, average in (
                (metrics.WAITING, str(wanted.target.queue)),
                (metrics.RUNNING, f"{round(_in_flight(resource, wanted) * 1000)}m"),
            )
        ],
        "behavior": behavior,
    }
    return document


def _scaled_object(
    resource: SLMDeployment, wanted: Autoscaling, site: AutoscalingSettings, behavior: dict[str, Any]
) -> dict[str, Any]:
    document = child(resource, "keda.sh/v1alpha1", "ScaledObject", resource.name)
    triggers = [
        _prometheus(resource, site, metrics.WAITING, str(wanted.target.queue)),
        _prometheus(resource, site, metrics.RUNNING, f"{_in_flight(resource, wanted):g}"),
    ]
    if wanted.waker is not None:
        triggers.append({"type": wanted.waker.type, "metadata": dict(wanted.waker.metadata)})
    document["spec"] = {
        "scaleTargetRef": _target(resource),
        "pollingInterval": POLL,
        "cooldownPeriod": behavior["scaleDown"]["stabilizationWindowSeconds"],
        "minReplicaCount": wanted.min,
        "maxReplicaCount": wanted.max,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": triggers,
    }
    return document


def _target(resource: SLMDeployment) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": resource.name}


def _in_flight(resource: SLMDeployment, wanted: Autoscaling) -> float:
    """Sequences a replica; at all that it decodes together nothing would tell that it could do with help."""
    parallel = resource.spec.runtime.parallel or int(RuntimeConfig.model_fields["parallel"].default)
    return wanted.target.in_flight or 0.8 * parallel


def _prometheus(
    resource: SLMDeployment, site: AutoscalingSettings, metric: str, threshold: str
) -> dict[str, Any]:
    namespace, name = resource.metadata.namespace, resource.name.replace(".", r"\\.")
    trigger: dict[str, Any] = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": site.prometheus,
            "query": f'sum({metric}{{namespace="{namespace}",pod=~"{name}-{_POD}"}})',
            "threshold": threshold,
            "activationThreshold": "0",
            # Nothing scraped isn't nothing to do: replicas stay as they are.
            "ignoreNullValues": "false",
            **({} if site.auth_modes is None else {"authModes": site.auth_modes}),
        },
    }
    if site.authentication is not None:
        trigger["authenticationRef"] = {"name": site.authentication, "kind": "ClusterTriggerAuthentication"}
    return trigger


def _metric(resource: SLMDeployment, means: Means, name: str, average: str) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": average}
    if means is Means.POD_METRICS:
        return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}
    selector = {"matchLabels": {"service": resource.name}}
    return {
        "type": "External",
        "external": {"metric": {"name": name, "selector": selector}, "target": target},
    }


def _behavior(load_seconds: float) -> dict[str, Any]:
    """How fast, by how long a replica takes to help.

    As many come as there are, and no more before these could have loaded; they go one by one, when nothing has asked for
    them for several times as long. Steps of a factor of two: each difference would be a write.
    """
    step = POLL << (ceil(max(load_seconds, 1) / POLL) - 1).bit_length()
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": min(step, _LONGEST_PERIOD)}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": min(max(_CALM, 4 * step), _LONGEST_WINDOW),
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }
