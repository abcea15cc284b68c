"""Who says how many replicas there are, and by which API of the cluster."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from slm_contract import metrics
from slm_contract.report import RuntimeReport
from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.faults import Fault
from slm_operator.nodes import Nodes
from slm_operator.ownership import scaled_by_others
from slm_operator.revision.revision import Revision
from slm_operator.settings import Settings
from slm_operator.snapshot import ChildRef, Document


class Means(StrEnum):
    """The autoscaler, by its kind and where it has its figures from."""

    KEDA = "ScaledObject"
    POD_METRICS = "MetricValueList"
    EXTERNAL_METRICS = "ExternalMetricValueList"


_BY_METRIC: Final = {"Pods": Means.POD_METRICS, "External": Means.EXTERNAL_METRICS}
"""By the first metric of a HorizontalPodAutoscaler of ours."""


def find_means(
    resource: SLMDeployment, settings: Settings, served: Collection[str], ours: Mapping[ChildRef, Document]
) -> Means | Fault | None:
    """By what it is scaled; a Fault where that can't be, None where nobody asks for it, or it is suspended.

    One that is there stays while the figures can't be had: it would know no better either, and changes nothing.
    """
    wanted, site = resource.spec.autoscaling, settings.autoscaling
    if wanted is None:
        return None
    if site is None:
        return _fault(
            "NotOffered",
            "the operator's configuration doesn't offer autoscaling",
            "have autoscaling.enabled set in the operator's chart",
        )
    if resource.spec.suspend:
        return None
    if Means.KEDA in served:
        if site.prometheus is not None:
            return Means.KEDA
        return _fault(
            "PrometheusUnknown",
            "KEDA is installed, and the operator's configuration names no Prometheus that it could ask",
            "have autoscaling.prometheusAddress set in the operator's chart",
        )
    if wanted.waker is not None:
        return _fault(
            "WakerNeedsKEDA",
            f"its waker is the KEDA trigger {wanted.waker.type}, and the cluster serves no ScaledObject (keda.sh/v1alpha1)",
            "install KEDA, or leave out waker and write min: 1",
        )
    found = next((each for each in (Means.POD_METRICS, Means.EXTERNAL_METRICS) if each in served), None)
    live = ours.get(ChildRef("HorizontalPodAutoscaler", resource.name))
    if found is None and live is not None:
        found = _BY_METRIC.get(live["spec"]["metrics"][0]["type"])
    return found or _fault(
        "MetricsAPIMissing",
        "the cluster serves neither ScaledObject (keda.sh/v1alpha1) nor, by custom.metrics.k8s.io or "
        f"external.metrics.k8s.io, the metric {metrics.WAITING}",
        "install KEDA, or an adapter of Prometheus' metrics, and have the pods scraped",
    )


def scaling_faults(
    resource: SLMDeployment, found: Means | Fault | None, revision: Revision | None, nodes: Nodes | None
) -> tuple[Fault, ...]:
    """What keeps it from being scaled as asked."""
    if isinstance(found, Fault):
        return (found,)
    if found is None or resource.spec.autoscaling is None or revision is None or nodes is None:
        return ()
    most, memory = resource.spec.autoscaling.max, int(parse_quantity(revision.memory.request))
    hardware_class = revision.hardware_class
    if hardware_class.provisionable:
        return ()
    room = nodes.room(hardware_class, resource.spec.hardware, memory)
    if room >= most:
        return ()
    return (
        _fault(
            "RoomForFewer",
            f"the nodes of the class {hardware_class.name} have room for {room} of the {most} replicas of "
            "spec.autoscaling.max, even if they were empty",
            "write a smaller max, or add nodes",
        ),
    )


def with_replicas(resource: SLMDeployment, means: Means | None, live: Document | None) -> SLMDeployment:
    """The SLMDeployment with the replicas that count.

    While an autoscaler has them, the Deployment's own; until it takes them over they stay what they are, within its bounds.
    """
    wanted = resource.spec.autoscaling
    if wanted is None or means is None:
        return resource
    running = 0 if live is None else int(live["spec"].get("replicas") or 0)
    if not autoscaled(means, live):
        running = min(max(running or resource.spec.replicas, wanted.min, 1), wanted.max)
    spec = resource.spec.model_copy(update={"replicas": running})
    return resource.model_copy(update={"spec": spec})


def autoscaled(means: Means | None, live: Document | None) -> bool:
    """Whether an autoscaler has written the Deployment's replicas: then nobody else does."""
    return means is not None and live is not None and scaled_by_others(live)


def load_seconds(resource: SLMDeployment, reports: Mapping[str, RuntimeReport]) -> float | None:
    """How long a replica takes from its start to ready, as measured; None where none has been."""
    measured = [each.performance.load_seconds for each in reports.values() if each.performance is not None]
    if measured:
        return max(measured)
    known = resource.status.performance
    return None if known is None else known.load_seconds


def _fault(reason: str, message: str, remedy: str) -> Fault:
    return Fault(reason, message, remedy, condition="Autoscaled", blocks=False)
