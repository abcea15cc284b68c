"""What is wrong with pods, Jobs and the Deployment, read from what kubelet, scheduler, controllers and runtime say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from slm_contract.places import ExitCode
from slm_contract.report import Failure, FailureReason, RuntimeReport
from slm_operator.crd.names import KEY_OWNER_PREFIX
from slm_operator.faults import Fault
from slm_operator.model.known import container_statuses
from slm_operator.observed.clues import steady
from slm_operator.observed.pods import (
    VOLUME_SECONDS,
    condition,
    is_ready,
    missing_claim,
    parse_time,
    volumes_of,
    waiting_since,
)
from slm_operator.snapshot import Document

_MODEL_REASONS: Final = frozenset(
    {
        FailureReason.SOURCE_INVALID,
        FailureReason.SOURCE_UNAUTHORIZED,
        FailureReason.SOURCE_NOT_FOUND,
        FailureReason.SOURCE_UNREACHABLE,
        FailureReason.SOURCE_UNTRUSTED,
        FailureReason.CHECKSUM_MISMATCH,
        FailureReason.SIGNATURE_MISSING,
        FailureReason.SIGNATURE_INVALID,
        FailureReason.DECRYPTION_FAILED,
        FailureReason.OUT_OF_SPACE,
        FailureReason.INVALID_MODEL,
        FailureReason.UNSUPPORTED_ARCHITECTURE,
        FailureReason.UNSUPPORTED_FORMAT,
        FailureReason.UNSUPPORTED_QUANTIZATION,
        FailureReason.QUANTIZATION_FAILED,
        FailureReason.MODEL_MISSING,
    }
)
_CONDITION: Final = {
    **dict.fromkeys(_MODEL_REASONS, "ModelReady"),
    FailureReason.OUT_OF_MEMORY: "MemoryFits",
    FailureReason.ACCELERATION_DEGRADED: "Accelerated",
    FailureReason.DEVICE_UNAVAILABLE: "Accelerated",
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
_PULL: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
}
_CONTAINERS: Final = frozenset({"fetch", "inspect", "serve"})
_DOWNLOADING: Final = frozenset({"Fetching", "Verifying", "Quantizing"})
_IMAGE_VOLUMES: Final = (
    "image volumes need Kubernetes 1.35 (1.33 with the feature gate ImageVolume in API server and kubelet) and nodes with "
    "containerd 2.1 or CRI-O 1.31"
)
_PULL_BY_NODE: Final = (
    "the node pulls it, by its own mirrors and CAs, with spec.model.credentials where that is a Secret of the type "
    "kubernetes.io/dockerconfigjson; or write another spec.cache.mode"
)
_CONFIG: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


class _Ended(BaseModel):
    """The one field that every termination message of the runtime has, whichever command wrote it."""

    failure: Failure | None = None


def pod_faults(
    pods: Iterable[Document],
    reports: Mapping[str, RuntimeReport],
    clues: Mapping[str, str],
    now: datetime,
) -> tuple[Fault, ...]:
    """What ails these pods: what needs somebody before what may heal, then by pod name.

    Parameters
    ----------
    clues
        By uid of the pod: what events say of one that doesn't come to life.
    """
    found = [
        fault
        for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"]))
        for fault in _pod_faults(
            pod,
            reports.get(str(pod["metadata"].get("uid"))),
            clues.get(str(pod["metadata"].get("uid")), ""),
            now,
        )
    ]
    return tuple(sorted(found, key=lambda fault: not fault.stalled))


def deployment_faults(deployment: Document) -> Iterator[Fault]:
    """What the Deployment's controller says: pods that can't be made, pods that don't get ready in time."""
    for each in deployment.get("status", {}).get("conditions", ()):
        if each.get("type") == "ReplicaFailure" and each.get("status") == "True":
            yield _not_made(str(each.get("reason") or "FailedCreate"), str(each.get("message", "")))
        if each.get("type") == "Progressing" and each.get("reason") == "ProgressDeadlineExceeded":
            yield Fault(
                reason="ProgressDeadlineExceeded",
                message=f"no pod of the present spec became ready in the time it was given: {each.get('message', '')}",
                remedy="look at the pods' events and logs; what is tried goes on",
            )


def dropped_volumes(deployment: Document, template: Document) -> Iterator[Fault]:
    """Image volumes that the API server has taken out of the pods, and their mounts with them, without a word.

    Parameters
    ----------
    template
        As it was meant.
    """
    has = {each["name"] for each in deployment["spec"]["template"]["spec"].get("volumes") or ()}
    for name, reference in _images_mounted(template["spec"]).items():
        if name not in has:
            yield Fault(
                reason="ImageVolumesOff",
                message=f"the API server takes image volumes out of pods, and the model is in the image {reference}",
                remedy=f"{_IMAGE_VOLUMES}, or write another spec.cache.mode",
                condition="ModelReady",
                stalled=True,
            )


def job_faults(jobs: Iterable[Document], clues: Mapping[str, str]) -> Iterator[Fault]:
    """Jobs whose pods can't be made; a Job's status is silent about that, its events aren't."""
    for job in jobs:
        words = clues.get(str(job["metadata"].get("uid")))
        if words and not int(job.get("status", {}).get("active") or 0):
            yield _not_made("FailedCreate", words)


def _not_made(reason: str, words: str) -> Fault:
    return Fault(
        reason=reason,
        message=f"no pod can be made: {steady(words)}",
        remedy="raise the quota, or change what forbids the pod; it is tried again",
    )


def _pod_faults(pod: Document, report: RuntimeReport | None, clue: str, now: datetime) -> Iterator[Fault]:
    if is_ready(pod):
        return
    name = str(pod["metadata"]["name"])
    status = pod.get("status", {})
    if report is not None and report.failure is not None:
        yield _from_failure(report.failure, pod=name)
        return
    if report is not None and report.download is not None and report.download.state in _DOWNLOADING:
        return
    images = tuple(_images_mounted(pod.get("spec", {})).values())
    for container in _ours_first(container_statuses(pod)):
        fault = _container_fault(container, name, images)
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
    yield from _volume_fault(pod, name, clue, now)


def _ours_first(statuses: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """An injected sidecar that waits for our container says nothing of why ours doesn't start."""
    return sorted(statuses, key=lambda each: each.get("name") not in _CONTAINERS)


def _volume_fault(pod: Document, name: str, clue: str, now: datetime) -> Iterator[Fault]:
    since = waiting_since(pod)
    if since is None or now - since < timedelta(seconds=VOLUME_SECONDS):
        return
    if KEY_OWNER_PREFIX in clue:
        yield Fault(
            reason="NameTaken",
            message=f"the Secret that the API key belongs into is somebody else's, and no key in it counts: {clue}",
            remedy="delete or rename that Secret, or name it in spec.auth.secretRef",
            stalled=True,
            pod=name,
            time=since,
        )
        return
    volumes = ", ".join(
        f"{kind} {each}" for kind, names in volumes_of(pod.get("spec", {})).items() for each in names
    )
    yield Fault(
        reason="VolumesNotReady",
        message=f"pod {name} has a node and isn't started there: "
        + (clue or f"it waits for its volumes ({volumes}) or its network"),
        remedy="make what is named, in this namespace; where all of it exists, look at the pod's events",
        pod=name,
        time=since,
    )


def _images_mounted(pod_spec: Mapping[str, Any]) -> dict[str, str]:
    """References of the images that are volumes, by the volumes' names."""
    volumes = pod_spec.get("volumes") or ()
    return {each["name"]: str(each["image"].get("reference", "")) for each in volumes if "image" in each}


def _container_fault(container: Mapping[str, Any], pod: str, mounted: Sequence[str]) -> Fault | None:
    """Why a container doesn't run.

    Parameters
    ----------
    mounted
        Images that the pod has for volumes: what is wrong with one is told of the container.
    """
    state = container.get("state", {})
    waiting, ended = state.get("waiting"), state.get("terminated")
    if ended is not None:
        return None if ended.get("exitCode") == 0 else _from_end(container, ended, pod)
    if waiting is not None and waiting.get("reason") in _PULL:
        message = str(waiting.get("message", ""))
        words = message.partition("ErrImagePull: ")
        of_model = next((each for each in mounted if each in message), None)
        return Fault(
            reason="ImagePullFailed",
            message=f"image {of_model or container.get('image', '')} can't be pulled: {words[2] or words[0]}",
            remedy="correct the image in spec.runtime.image or the operator's configuration, or give pull secrets there"
            if of_model is None
            else _PULL_BY_NODE,
            stalled=waiting.get("reason") == "InvalidImageName",
            pod=pod,
        )
    if waiting is not None and waiting.get("reason") in _CONFIG:
        return Fault(
            reason="ContainerConfigFailed",
            message=f"container {container.get('name')} can't be made: {waiting.get('message', '')}",
            remedy="make what it names, in this namespace, or correct the spec"
            + (f"; {_IMAGE_VOLUMES}" if mounted else ""),
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
    # A fetch that is cut off is tried again for ever; a server that ends again and again isn't.
    restarts = int(container.get("restartCount") or 0) if name == "serve" else 0
    failure = _failure(message)
    # The kernel takes the largest process, which is the engine's: the one that is left knows only that it was killed.
    killed = ended.get("reason") == "OOMKilled"
    if failure is not None and not (killed and failure.reason == FailureReason.ENGINE_FAILED):
        return replace(_from_failure(failure, pod=pod), exit_code=code, time=time, restarts=restarts)
    if killed:
        return Fault(
            reason=FailureReason.OUT_OF_MEMORY,
            message=f"the kernel ended container {name}: it took more memory than its limit",
            remedy=_EXITS[ExitCode.OUT_OF_MEMORY][1],
            condition="MemoryFits",
            pod=pod,
            exit_code=code,
            restarts=restarts,
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
        restarts=restarts,
        time=time,
    )


def _failure(message: str) -> Failure | None:
    try:
        return _Ended.model_validate_json(message).failure if message.startswith("{") else None
    except ValidationError:
        return None


def _from_failure(failure: Failure, *, pod: str) -> Fault:
    return Fault(
        reason=failure.reason,
        message=failure.message,
        remedy=failure.remedy,
        condition=_CONDITION.get(failure.reason),
        stalled=failure.permanent,
        pod=pod,
    )


def _scheduling_fault(pod: Document, name: str) -> Iterator[Fault]:
    judged = condition(pod, "PodScheduled")
    if judged.get("status") == "False" and judged.get("reason") == "Unschedulable":
        words = str(judged.get("message", ""))
        claim = missing_claim(words)
        if claim is not None:
            yield Fault(
                reason="ClaimNotFound",
                message=f"pod {name} waits for the claim {claim}, which this namespace doesn't have: {words}",
                remedy="make it, or name another in spec.model.source (pvc://) or spec.cache.claimName",
                condition="ModelReady",
                pod=name,
                time=parse_time(judged["lastTransitionTime"]),
            )
            return
        yield Fault(
            reason="Unschedulable",
            message=words,
            remedy="free or add a node, ask for less in spec.resources or spec.runtime, or name another class in "
            "spec.hardware.preference",
            condition="Placed",
            pod=name,
            time=parse_time(judged["lastTransitionTime"]),
        )
