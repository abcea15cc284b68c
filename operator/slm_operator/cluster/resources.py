"""The kinds of objects that the operator reads or writes, and where the API server keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from slm_contract import metrics
from slm_operator.crd import names
from slm_operator.settings import Settings


@dataclass(frozen=True)
class Resource:
    """One kind in one version."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    selector: str = ""
    """Label selector of the objects that concern us; empty: all."""
    listable: bool = True
    """False where only whether it is served is of interest."""

    @property
    def group(self) -> str:
        """Empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def root(self) -> str:
        """Path of the group and version: its answer lists the kinds that are served."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of a collection, an object or a part of it; ``namespace`` None is the whole cluster."""
        parts = [self.root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


OURS: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
"""Selects the objects that this operator makes, and their pods."""

SLM_DEPLOYMENT: Final = Resource(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENT: Final = Resource("apps/v1", "Deployment", "deployments", selector=OURS)
DAEMON_SET: Final = Resource("apps/v1", "DaemonSet", "daemonsets", selector=OURS)
SERVICE: Final = Resource("v1", "Service", "services", selector=OURS)
CONFIG_MAP: Final = Resource("v1", "ConfigMap", "configmaps", selector=OURS)
CLAIM: Final = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims", selector=OURS)
CONTROLLER_REVISION: Final = Resource("apps/v1", "ControllerRevision", "controllerrevisions", selector=OURS)
DISRUPTION_BUDGET: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", selector=OURS)
JOB: Final = Resource("batch/v1", "Job", "jobs", selector=OURS)
SERVICE_MONITOR: Final = Resource(
    "monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", selector=OURS
)
PROMETHEUS: Final = Resource("monitoring.coreos.com/v1", "Prometheus", "prometheuses")
PROMETHEUS_AGENT: Final = Resource("monitoring.coreos.com/v1alpha1", "PrometheusAgent", "prometheusagents")
NAMESPACE: Final = Resource("v1", "Namespace", "namespaces", namespaced=False)
"""Listed now and then, like those who scrape, where the settings ask for it; never watched."""
AUTOSCALER: Final = Resource(
    "autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", selector=OURS
)
SCALED_OBJECT: Final = Resource("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", selector=OURS)
POD_METRICS: Final = Resource(
    "custom.metrics.k8s.io/v1beta1", "MetricValueList", f"pods/{metrics.WAITING}", listable=False
)
EXTERNAL_METRICS: Final = Resource(
    "external.metrics.k8s.io/v1beta1", "ExternalMetricValueList", metrics.WAITING, listable=False
)
"""What a metrics API lists are the metrics that it has by now."""
HTTP_ROUTE: Final = Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", selector=OURS)
INFERENCE_POOL: Final = Resource(
    "inference.networking.k8s.io/v1", "InferencePool", "inferencepools", selector=OURS
)
POD: Final = Resource("v1", "Pod", "pods", selector=OURS)
NODE: Final = Resource("v1", "Node", "nodes", namespaced=False)
SECRET: Final = Resource("v1", "Secret", "secrets")
"""Created only: never read, listed or watched."""
LEASE: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENT: Final = Resource("v1", "Event", "events")
"""Made, and listed for one object; never watched."""

WATCHED: Final = (
    SLM_DEPLOYMENT,
    DEPLOYMENT,
    DAEMON_SET,
    SERVICE,
    CONFIG_MAP,
    CLAIM,
    CONTROLLER_REVISION,
    DISRUPTION_BUDGET,
    JOB,
    AUTOSCALER,
    POD,
    NODE,
)
"""All that may be watched (:func:`watched`) in any cluster."""
OPTIONAL: Final = (SERVICE_MONITOR, SCALED_OBJECT, POD_METRICS, EXTERNAL_METRICS, HTTP_ROUTE, INFERENCE_POOL)
"""What a cluster may lack: looked for (:func:`optional`), and watched where it is served."""

_BY_KIND: Final = {
    (resource.api_version, resource.kind): resource
    for resource in (*WATCHED, *OPTIONAL, SECRET, LEASE, EVENT)
}


def watched(settings: Settings) -> tuple[Resource, ...]:
    """What an operator of these settings watches: what only some settings have it make, it may read only with these."""
    unmade = {
        *([CONFIG_MAP] if settings.fetch.ca_bundle is None else []),
        *([DAEMON_SET] if settings.node_cache is None else []),
        *([AUTOSCALER] if settings.autoscaling is None else []),
    }
    return tuple(each for each in WATCHED if each not in unmade)


def optional(settings: Settings) -> tuple[Resource, ...]:
    """What an operator of these settings looks for beside them."""
    unmade = {
        *([SCALED_OBJECT, POD_METRICS, EXTERNAL_METRICS] if settings.autoscaling is None else []),
        *([] if settings.gateways else [HTTP_ROUTE, INFERENCE_POOL]),
    }
    return tuple(each for each in OPTIONAL if each not in unmade)


def resource_of(document: Mapping[str, Any]) -> Resource:
    """The resource of an object that carries its ``apiVersion`` and ``kind``.

    Raises
    ------
    LookupError
        The operator has no business with that kind.
    """
    try:
        return _BY_KIND[document["apiVersion"], document["kind"]]
    except KeyError:
        raise LookupError(
            f"{document.get('apiVersion')}/{document.get('kind')} isn't a kind that this operator handles"
        ) from None
