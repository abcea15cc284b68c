"""Pods of an SLMDeployment: which are meant, which are ready, which wait for a node or a volume."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from slm_contract.report import RuntimeReport
from slm_operator.crd.names import COMPONENT_LABEL, HARDWARE_LABEL, MODEL_LABEL, REVISION_LABEL
from slm_operator.model.known import container_statuses, runtime_config
from slm_operator.snapshot import Document

VOLUME_SECONDS = 30
"""A pod that was scheduled this long ago and has no sandbox yet waits for a volume."""

_NO_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" (?:not found|is being deleted)')


def pods_of_template(pods: Iterable[Document], template: Document) -> tuple[Document, ...]:
    """Serving pods of a template; those of an earlier one are on their way out, and so is what ails them.

    They are told by the revision's label, which webhooks leave alone, whatever they do to images and containers. A template
    that is older than the label is told by what its pods are told.
    """
    revision = _label(template, REVISION_LABEL)
    config = None if revision is not None else runtime_config(template["spec"])
    return tuple(
        pod
        for pod in pods
        if _label(pod, COMPONENT_LABEL) in {None, "runtime"}
        and not _going(pod)
        and (
            _label(pod, REVISION_LABEL) == revision
            if revision is not None
            else _label(pod, REVISION_LABEL) is None and runtime_config(pod.get("spec", {})) == config
        )
    )


def has_component(pod: Document, component: str) -> bool:
    return _label(pod, COMPONENT_LABEL) == component


def pods_of_jobs(pods: Iterable[Document], model_keys: Iterable[str]) -> tuple[Document, ...]:
    """Pods of the Jobs that read these models."""
    keys = frozenset(model_keys)
    return tuple(pod for pod in pods if _label(pod, MODEL_LABEL) in keys and not _going(pod))


def heard_from(pods: Iterable[Document], reports: Mapping[str, RuntimeReport]) -> dict[str, RuntimeReport]:
    """By pod uid: without those of containers that have ended, of which a pod that isn't reached again leaves the last."""
    ended = {str(pod["metadata"].get("uid")): frozenset(_ended(pod)) for pod in pods}
    return {uid: each for uid, each in reports.items() if each.command not in ended.get(uid, ())}


def _ended(pod: Document) -> Iterator[str]:
    """Names of the containers that have run and don't now."""
    for each in container_statuses(pod):
        state = each.get("state", {})
        if "running" not in state and ("terminated" in state or "terminated" in each.get("lastState", {})):
            yield str(each.get("name"))


def is_ready(pod: Document) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def condition(pod: Document, kind: str) -> Mapping[str, str]:
    """One of the pod's conditions; empty where it has none of that type."""
    conditions: Iterable[Mapping[str, str]] = pod.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each.get("type") == kind), {})


def unscheduled(pods: Iterable[Document], hardware_class: str) -> str | None:
    """The scheduler's words where it has found no node for any pod of the class.

    One that runs, or that the scheduler hasn't judged yet, makes it a partial shortage, which stays: None. So does a claim
    that is missing, on whatever node.
    """
    words: list[str] = []
    for pod in pods:
        if _label(pod, HARDWARE_LABEL) != hardware_class or _going(pod):
            continue
        judged = condition(pod, "PodScheduled")
        said = str(judged.get("message", ""))
        if judged.get("status") != "False" or judged.get("reason") != "Unschedulable" or missing_claim(said):
            return None
        words.append(said)
    return min(words, default=None)


def missing_claim(words: str) -> str | None:
    """The claim that isn't there, where that is what the scheduler says."""
    found = _NO_CLAIM.search(words)
    return None if found is None else found[1]


def any_scheduled(pods: Iterable[Document], hardware_class: str) -> bool:
    """Whether a pod of the class has found a node; False also where none has been judged yet."""
    return any(
        condition(pod, "PodScheduled").get("status") == "True"
        for pod in pods
        if _label(pod, HARDWARE_LABEL) == hardware_class and not _going(pod)
    )


def waiting_since(pod: Document) -> datetime | None:
    """When a pod got a node, if it has no sandbox on it yet."""
    scheduled, sandbox = condition(pod, "PodScheduled"), condition(pod, "PodReadyToStartContainers")
    if scheduled.get("status") != "True" or sandbox.get("status") != "False":
        return None
    if pod.get("status", {}).get("phase") != "Pending":
        return None
    return parse_time(scheduled["lastTransitionTime"])


def volume_wait(pods: Iterable[Document], now: datetime) -> float | None:
    """Seconds until the first pod that waits for its volumes counts as stuck, 0 where one does; None where none waits."""
    waits = [
        max(0.0, VOLUME_SECONDS - (now - since).total_seconds())
        for pod in pods
        if (since := waiting_since(pod)) is not None
    ]
    return min(waits, default=None)


def nodes_of(pods: Iterable[Document]) -> tuple[str, ...]:
    """Names of the nodes that the pods are on."""
    return tuple(sorted({name for pod in pods if (name := pod.get("spec", {}).get("nodeName"))}))


def volumes_of(pod_spec: Document) -> dict[str, set[str]]:
    """Names of the objects that a pod mounts, by kind."""
    found: dict[str, set[str]] = {"Secret": set(), "ConfigMap": set(), "PersistentVolumeClaim": set()}
    for volume in pod_spec.get("volumes") or ():
        sources = (volume, *(volume.get("projected", {}).get("sources") or ()))
        for source in sources:
            if "secret" in source:
                found["Secret"].add(source["secret"].get("secretName") or source["secret"].get("name"))
            if "configMap" in source:
                found["ConfigMap"].add(source["configMap"].get("name"))
            if "persistentVolumeClaim" in source:
                found["PersistentVolumeClaim"].add(source["persistentVolumeClaim"].get("claimName"))
    return found


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text)


def _label(document: Document, name: str) -> str | None:
    return (document["metadata"].get("labels") or {}).get(name)


def _going(pod: Document) -> bool:
    return "deletionTimestamp" in pod["metadata"]
