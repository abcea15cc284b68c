"""What others put in the way: refusals of the API server, names that are taken, fields that somebody else writes. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from slm_operator.crd.resource import SLMDeployment
from slm_operator.faults import Fault
from slm_operator.plan import Child, of_predecessor, orphaned
from slm_operator.scrapers import Scrapers
from slm_operator.snapshot import ChildRef, Document, Refusal

LOOK_AGAIN: Final = 30.0
"""Seconds until somebody else's object in our way is looked at again: no watch tells of it."""
GARBAGE: Final = 2.0
"""Seconds until an object that the garbage collector is about to take is looked at again."""
_ASIDE: Final = {
    "ServiceMonitor": "MonitoringReady",
    "PodDisruptionBudget": "Refused",
    "ScaledObject": "Autoscaled",
    "HorizontalPodAutoscaler": "Autoscaled",
    "HTTPRoute": "Routed",
    "InferencePool": "Routed",
}
"""Children without which the model is served all the same, and the condition that tells of them."""


def refused_write(refusal: Refusal) -> Fault:
    return Fault(
        reason=refusal.reason,
        message=f"{refusal.ref.kind} {refusal.ref.name}: {refusal.message}",
        remedy="take away what stands in the way; it is tried again",
        condition=_ASIDE.get(refusal.ref.kind),
        stalled=refusal.permanent and refusal.ref.kind not in _ASIDE,
        blocks=refusal.ref.kind not in _ASIDE,
    )


def taken_names(taken: Mapping[ChildRef, Document], resource: SLMDeployment) -> Iterator[Fault]:
    for ref, document in taken.items():
        if of_predecessor(document, resource.name, resource.metadata.uid):
            yield Fault(
                reason="WaitingForGarbageCollector",
                message=f"{ref.kind} {ref.name} belongs to an earlier SLMDeployment of this name, which is gone",
                remedy="wait: the garbage collector deletes it, and then it is made anew",
                condition=_ASIDE.get(ref.kind),
                blocks=ref.kind not in _ASIDE,
            )
        else:
            left = orphaned(document, resource.name)
            yield Fault(
                reason="NameTaken",
                message=f"{ref.kind} {ref.name} "
                + (
                    "was left behind by an SLMDeployment of this name that was deleted without it, and has no owner"
                    if left
                    else "belongs to somebody else and is left alone"
                ),
                remedy="make this SLMDeployment its owner (docs/troubleshooting.md says how), or delete it"
                if left
                else "delete or rename it, or give the SLMDeployment another name",
                condition=_ASIDE.get(ref.kind),
                stalled=ref.kind not in _ASIDE,
                blocks=ref.kind not in _ASIDE,
            )


def look_again(taken: Mapping[ChildRef, Document], resource: SLMDeployment) -> float | None:
    waits = [
        GARBAGE if of_predecessor(each, resource.name, resource.metadata.uid) else LOOK_AGAIN
        for each in taken.values()
    ]
    return min(waits, default=None)


def contended_fields(children: Iterable[Child], yielding: frozenset[ChildRef]) -> Iterator[Fault]:
    for each in children:
        if each.contested and each.ref in yielding:
            loss = each.contested[0]
            yield Fault(
                reason="FieldsTaken",
                message=f"{loss.manager} keeps changing {loss.path} of {each.ref.kind} {each.ref.name}, "
                f"which is the operator's (and {len(each.contested) - 1} fields more)",
                remedy=f"keep {loss.manager} from that object, or say in the SLMDeployment what you want",
                condition="Contended",
                blocks=each.ref.kind not in _ASIDE,
            )
        elif each.differences.rewritten:
            yield Fault(
                reason="RewrittenAtAdmission",
                message="the API server, or a webhook of this cluster, gives "
                f"{', '.join(each.differences.rewritten[:8])} of {each.ref.kind} {each.ref.name} another value than the "
                "operator does",
                remedy="none is needed where that is meant; else exempt the object from the webhook",
                condition="Contended",
                blocks=False,
            )


def unselected_monitor(monitor: Document, scrapers: Scrapers) -> Iterator[Fault]:
    """Nobody scrapes by a ServiceMonitor that no Prometheus takes, and nothing else ever says so."""
    metadata = monitor["metadata"]
    objections = scrapers.objections(metadata["labels"], metadata["namespace"])
    if objections is None:
        return
    yield Fault(
        reason="NotSelected" if objections else "NoPrometheus",
        message=f"no Prometheus takes ServiceMonitor {metadata['name']}: " + "; ".join(objections[:4])
        if objections
        else "the cluster has ServiceMonitors, but no Prometheus that could take them",
        remedy="give it the labels that are asked for, here in observability.serviceMonitor.labels or for all in the "
        "chart's monitoring.labels"
        if objections
        else "make a Prometheus, or turn off the chart's monitoring.checkSelection where something else reads them",
        condition="MonitoringReady",
        blocks=False,
    )


def pod_template_clash(words: str) -> Fault:
    return Fault(
        reason="PodTemplateClash",
        message=words,
        remedy="leave it out: pods are made without it",
        condition="Refused",
        blocks=False,
    )
