"""What is wrong with the pods, read from what kubelet, scheduler and runtime say of them. One fault, the most telling."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from slm_contract.places import ExitCode
from slm_contract.report import Failure, FailureReason, RuntimeReport
from slm_operator.model.known import container_statuses
from slm_operator.placement.history import parse_time
from slm_operator.snapshot import Document

VOLUME_SECONDS: Final = 30
"""A pod that was scheduled this long ago and has no sandbox yet waits for a volume."""

_MODEL_REASONS: Final = frozenset(
    {
        FailureReason.SOURCE_INVALID,
        FailureReason.SOURCE_UNAUTHORIZED,
        FailureReason.SOURCE_NOT_FOUND,
        FailureReason.SOURCE_UNREACHABLE,
        FailureReason.SOURCE_UNTRUSTED,
        FailureReason.CHECKSUM_MISMATCH,
        FailureReason.OUT_OF_SPACE,
        FailureReason.INVALID_MODEL,
        FailureReason.UNSUPPORTED_ARCHITECTURE,
        FailureReason.UNSUPPORTED_FORMAT,
        FailureReason.MODEL_MISSING,
    }
)
_CONDITION: Final = {
    **dict.fromkeys(_MODEL_REASONS, "ModelReady"),
    FailureReason.OUT_OF_MEMORY: "MemoryFits",
    FailureReason.ACCELERATION_DEGRADED: "Accelerated",
}
_EXITS: Final[dict[int, tuple[FailureReason, str]]] = {
    ExitCode.CONFIG_INVALID: (
        FailureReason.CONFIG_INVALID,
        "the runtime image doesn't understand this operator: take the image of the operator's own version",
    ),
    ExitCode.FETCH_PERMANENT: (FailureReason.SOURCE_INVALID, "see the log of the pod's fetch container"),
    ExitCode.FETCH_TRANSIENT: (
        FailureReason.SOURCE_UNREACHABLE,
        "it is tried again; see the log of the fetch container",
    ),
    ExitCode.MODEL_INVALID: (
        FailureReason.INVALID_MODEL,
        "name a model that this runtime can load in spec.model.source",
    ),
    ExitCode.OUT_OF_MEMORY: (
        FailureReason.OUT_OF_MEMORY,
        "give it more in spec.resources, or less to do in spec.runtime (contextLength, parallel, kvCacheType)",
    ),
    ExitCode.PORT_IN_USE: (FailureReason.PORT_IN_USE, "another container in the pod has the runtime's port"),
    ExitCode.ENGINE_FAILED: (
        FailureReason.ENGINE_FAILED,
        "see the log of the pod's previous serve container",
    ),
}
_POD_NAME: Final = re.compile(r'pods "[^"]*" ')
_PULL: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
}
_CONFIG: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class Fault:
    """What is wrong, for people and for the condition that it speaks to."""

    reason: str
    message: str
    remedy: str
    condition: str | None = None
    """The step that it stops; None where only Ready tells."""
    stalled: bool = False
    """True where nothing gets better unless somebody changes something."""
    pod: str | None = None
    exit_code: int | None = None
    time: datetime | None = None


class _Ended(BaseModel):
    """The one field that every termination message of the runtime has, whichever command wrote it."""

    failure: Failure | None = None


def find_fault(pods: Iterable[Document], reports: Mapping[str, RuntimeReport], now: datetime) -> Fault | None:
    """The most telling fault of these pods: one that needs somebody before one that may heal, then by pod name."""
    found = [
        fault
        for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"]))
        for fault in _pod_faults(pod, reports.get(str(pod["metadata"].get("uid"))), now)
    ]
    return min(found, key=lambda fault: not fault.stalled, default=None)


def creation_fault(deployment: Document) -> Fault | None:
    """Pods that can't even be made: a quota, Pod Security or an admission policy forbids them."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            # Each try names another pod.
            words = _POD_NAME.sub("pods ", str(condition.get("message", "")))
            return Fault(
                reason=str(condition.get("reason") or "FailedCreate"),
                message=f"no pod can be made: {words}",
                remedy="raise the quota, or change what forbids the pod; it is tried again",
            )
    return None


def is_ready(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def volume_wait(pods: Iterable[Document], now: datetime) -> float | None:
    """Seconds until the first pod that waits for its volumes counts as stuck, 0 where one does; None where none waits."""
    waits = [
        max(0.0, VOLUME_SECONDS - (now - since).total_seconds())
        for pod in pods
        if (since := _waiting_since(pod)) is not None
    ]
    return min(waits, default=None)


def _pod_faults(pod: Document, report: RuntimeReport | None, now: datetime) -> Iterator[Fault]:
    if is_ready(pod):
        return
    name = str(pod["metadata"]["name"])
    status = pod.get("status", {})
    if report is not None and report.failure is not None:
        yield _from_failure(report.failure, pod=name)
        return
    if (
        report is not None
        and report.download is not None
        and report.download.state in {"Fetching", "Verifying"}
    ):
        return
    for container in container_statuses(pod):
        fault = _container_fault(container, name)
        if fault is not None:
            yield fault
            return
    if status.get("phase") == "Failed":
        yield Fault(
            reason=str(status.get("reason") or "PodFailed"),
            message=str(status.get("message") or f"pod {name} has failed"),
            remedy="the pod is made anew; give the node more room where it was evicted",
            pod=name,
        )
        return
    yield from _scheduling_fault(pod, name)
    since = _waiting_since(pod)
    if since is not None and now - since >= timedelta(seconds=VOLUME_SECONDS):
        volumes = ", ".join(_referenced(pod))
        yield Fault(
            reason="VolumesNotReady",
            message=f"pod {name} waits for its volumes: {volumes}",
            remedy="make the Secrets, ConfigMaps and claims that the spec names, in this namespace",
            pod=name,
            time=since,
        )


def _container_fault(container: Mapping[str, Any], pod: str) -> Fault | None:
    state = container.get("state", {})
    waiting, ended = state.get("waiting"), state.get("terminated")
    if ended is not None:
        return None if ended.get("exitCode") == 0 else _from_end(container, ended, pod)
    if waiting is not None and waiting.get("reason") in _PULL:
        image = str(container.get("image", ""))
        words = str(waiting.get("message", "")).partition("ErrImagePull: ")
        return Fault(
            reason="ImagePullFailed",
            message=f"image {image} can't be pulled: {words[2] or words[0]}",
            remedy="correct the image in spec.runtime.image or the operator's configuration, or give pull secrets there",
            stalled=waiting.get("reason") == "InvalidImageName",
            pod=pod,
        )
    if waiting is not None and waiting.get("reason") in _CONFIG:
        return Fault(
            reason="ContainerConfigFailed",
            message=f"container {container.get('name')} can't be made: {waiting.get('message', '')}",
            remedy="make what it names, in this namespace, or correct the spec",
            pod=pod,
        )
    last = container.get("lastState", {}).get("terminated")
    if last is not None and last.get("exitCode") != 0:
        return _from_end(container, last, pod)
    return None


def _from_end(container: Mapping[str, Any], ended: Mapping[str, Any], pod: str) -> Fault:
    """How a container ended: its own words first, then kubelet's, then its exit code."""
    code = int(ended.get("exitCode", -1))
    time = parse_time(ended["finishedAt"]) if ended.get("finishedAt") else None
    name, message = str(container.get("name", "")), str(ended.get("message") or "")
    failure = _failure(message)
    if failure is not None:
        return _from_failure(failure, pod=pod, exit_code=code, time=time)
    if ended.get("reason") == "OOMKilled":
        return Fault(
            reason=FailureReason.OUT_OF_MEMORY,
            message=f"the kernel ended container {name}: it took more memory than its limit",
            remedy=_EXITS[ExitCode.OUT_OF_MEMORY][1],
            condition="MemoryFits",
            pod=pod,
            exit_code=code,
            time=time,
        )
    reason, remedy = _EXITS.get(code, (None, f"see the log of the pod's previous {name} container"))
    return Fault(
        reason="ContainerFailed" if reason is None else reason,
        message=f"container {name} ended with code {code}" + (f": {message}" if message else ""),
        remedy=remedy,
        condition=None if reason is None else _CONDITION.get(reason),
        pod=pod,
        exit_code=code,
        time=time,
    )


def _failure(message: str) -> Failure | None:
    try:
        return _Ended.model_validate_json(message).failure if message.startswith("{") else None
    except ValidationError:
        return None


def _from_failure(
    failure: Failure, *, pod: str, exit_code: int | None = None, time: datetime | None = None
) -> Fault:
    return Fault(
        reason=failure.reason,
        message=failure.message,
        remedy=failure.remedy,
        condition=_CONDITION.get(failure.reason),
        stalled=failure.permanent,
        pod=pod,
        exit_code=exit_code,
        time=time,
    )


def _scheduling_fault(pod: Document, name: str) -> Iterator[Fault]:
    for condition in pod.get("status", {}).get("conditions", ()):
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("status") == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            yield Fault(
                reason="Unschedulable",
                message=str(condition.get("message", "")),
                remedy="free or add a node, ask for less in spec.resources or spec.runtime, or name another class in "
                "spec.hardware.preference",
                condition="Placed",
                pod=name,
                time=parse_time(condition["lastTransitionTime"]),
            )


def _waiting_since(pod: Document) -> datetime | None:
    """When a pod got a node, if it has no sandbox on it yet."""
    conditions = {each.get("type"): each for each in pod.get("status", {}).get("conditions", ())}
    scheduled, sandbox = conditions.get("PodScheduled"), conditions.get("PodReadyToStartContainers")
    if scheduled is None or sandbox is None:
        return None
    if scheduled.get("status") != "True" or sandbox.get("status") != "False":
        return None
    if pod.get("status", {}).get("phase") != "Pending":
        return None
    return parse_time(scheduled["lastTransitionTime"])


def _referenced(pod: Document) -> Iterator[str]:
    for volume in pod.get("spec", {}).get("volumes", ()):
        if "secret" in volume:
            yield f"Secret {volume['secret'].get('secretName')}"
        elif "configMap" in volume:
            yield f"ConfigMap {volume['configMap'].get('name')}"
        elif "persistentVolumeClaim" in volume:
            yield f"PersistentVolumeClaim {volume['persistentVolumeClaim'].get('claimName')}"
