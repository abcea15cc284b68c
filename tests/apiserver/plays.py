"""What the fake kubelet lets pods do: the statuses that a kubelet sets, for each of the plays that are known.

A pod's play is the tag of its image (``runtime:never-ready``) or the name of the model's file in its source
(``https://models.example.com/oom.gguf``), so that a test reaches it by an edit that people make:

==================  ==============================================================================================
never-ready         runs, and never passes its startup probe
oom                 serve is killed by the kernel (137, OOMKilled), and backs off
oom-below-300Mi     so only while the container's memory limit is below that
crash               serve ends with the code of a failed engine, and backs off
bad-checksum        fetch ends with ChecksumMismatch in its last words, and backs off
pull-error          the image can't be pulled
slow                neither fetches nor serves: as a pod that was just bound
==================  ==============================================================================================

Any other is ready at once; a Job's pod ends well, and says what it would have read of a model. *Unschedulable* is the
real scheduler's word: ask for more than the node has (:data:`TOO_MUCH_MEMORY`).
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from slm_contract.places import CONFIG_ENV, ExitCode
from slm_contract.report import Failure, FailureReason, FetchReport
from slm_operator.crd.quantities import parse_quantity
from tests.sim.played import FACTS

TOO_MUCH_MEMORY = "200Ti"

Json = dict[str, Any]
_SOURCE = re.compile(r'"source":\s*"[^"]*/([^"/]+?)(?:\.gguf)?"')
_MISMATCH = Failure(
    reason=FailureReason.CHECKSUM_MISMATCH,
    message="the file's SHA-256 isn't the one in spec.model.sha256",
    remedy="correct spec.model.sha256, or find out who changed the file",
    permanent=True,
)


def play_of(pod: Json) -> str:
    """By the model's name before the image's tag: the init container's config is the runtime's."""
    for container in _ours(pod):
        for variable in container.get("env") or ():
            if variable["name"] == CONFIG_ENV and (found := _SOURCE.search(variable.get("value", ""))):
                name = found[1]
                if _behaviour(name) is not None:
                    return name
    return next((container["image"].rpartition(":")[2] for container in _ours(pod)), "")


def status_of(pod: Json) -> Json:
    """The status of a pod that has just been bound to the node, after all that its play says has happened."""
    play = play_of(pod)
    behaviour = _behaviour(play)
    return well(pod) if behaviour is None else behaviour(pod, play)


def well(pod: Json) -> Json:
    """The model is fetched and served, or the work is done."""
    ends = pod["spec"].get("restartPolicy") in {"Never", "OnFailure"}
    done = _ended(0, "Completed", _report(ends))
    serving = [_container(each, done if ends else _running(), ready=not ends) for each in _containers(pod)]
    return _status(
        pod, "Succeeded" if ends else "Running", init=_initialized(pod), containers=serving, ready=not ends
    )


def _never_ready(pod: Json, _: str) -> Json:
    """Sidecars are; a pod is when all are."""
    serving = [_container(each, _running(), ready=not _is_ours(each)) for each in _containers(pod)]
    return _status(pod, "Running", init=_initialized(pod), containers=serving)


def _oom(pod: Json, play: str) -> Json:
    least = play.removeprefix("oom").removeprefix("-below-")
    limits = [
        (each.get("resources") or {}).get("limits") or {} for each in _containers(pod) if _is_ours(each)
    ]
    enough = [parse_quantity(each.get("memory", "0")) >= parse_quantity(least) for each in limits if least]
    return well(pod) if enough and all(enough) else _crashed(pod, _ended(137, "OOMKilled"))


def _crash(pod: Json, _: str) -> Json:
    return _crashed(pod, _ended(ExitCode.ENGINE_FAILED, "Error"))


def _crashed(pod: Json, ended: Json) -> Json:
    """The container that isn't a sidecar has ended, and waits for its next start."""
    serving = [
        _container(each, _backing_off(pod, each), last=ended, restarts=3)
        if _is_ours(each)
        else _container(each, _running(), ready=True)
        for each in _containers(pod)
    ]
    return _status(pod, "Running", init=_initialized(pod), containers=serving)


def _bad_checksum(pod: Json, _: str) -> Json:
    """Of the fetch container where there is one, else of a Job's; what comes after waits."""
    told = FetchReport(command="fetch", failure=_MISMATCH, seconds=1.0).to_json()
    ended = _ended(ExitCode.FETCH_PERMANENT, "Error", told)
    if not any(map(_is_ours, _inits(pod))):
        return _crashed(pod, ended)
    init = [
        _container(each, _backing_off(pod, each), last=ended, restarts=3)
        if _is_ours(each)
        else _initialized_one(pod, each)
        for each in _inits(pod)
    ]
    waiting = _waiting("PodInitializing")
    serving = [_container(each, waiting) for each in _containers(pod)]
    return _status(pod, "Pending", init=init, containers=serving, initialized=False)


def _pull_error(pod: Json, _: str) -> Json:
    def state(each: Json) -> Json:
        image = each["image"]
        return _waiting(
            "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {image}: not found'
        )

    init = [_container(each, state(each)) for each in _inits(pod)]
    waits = _waiting("PodInitializing")
    serving = [_container(each, waits if init else state(each)) for each in _containers(pod)]
    return _status(pod, "Pending", init=init, containers=serving, initialized=not init)


def _slow(pod: Json, _: str) -> Json:
    waits = _waiting("PodInitializing")
    return _status(
        pod,
        "Pending",
        init=[_container(each, waits) for each in _inits(pod)],
        containers=[_container(each, waits) for each in _containers(pod)],
        initialized=False,
    )


def _behaviour(play: str) -> Callable[[Json, str], Json] | None:
    if re.fullmatch(r"oom(-below-\w+)?", play):
        return _oom
    return {
        "never-ready": _never_ready,
        "crash": _crash,
        "bad-checksum": _bad_checksum,
        "pull-error": _pull_error,
        "slow": _slow,
    }.get(play)


def _is_ours(container: Json) -> bool:
    """The runtime's, not a sidecar that a webhook has added."""
    return any(variable["name"] == CONFIG_ENV for variable in container.get("env") or ())


def _ours(pod: Json) -> list[Json]:
    return [each for each in (*_inits(pod), *_containers(pod)) if _is_ours(each)]


def _inits(pod: Json) -> list[Json]:
    found: list[Json] = pod["spec"].get("initContainers") or []
    return found


def _containers(pod: Json) -> list[Json]:
    found: list[Json] = pod["spec"]["containers"]
    return found


def _initialized(pod: Json) -> list[Json]:
    return [_initialized_one(pod, each) for each in _inits(pod)]


def _initialized_one(pod: Json, container: Json) -> Json:
    """A sidecar among the init containers runs on; the others have ended."""
    if container.get("restartPolicy") == "Always":
        return _container(container, _running(), ready=True)
    ends = pod["spec"].get("restartPolicy") in {"Never", "OnFailure"}
    return _container(
        container, _ended(0, "Completed", _report(ends) if _is_ours(container) else ""), ready=True
    )


def _report(inspected: bool) -> str:
    return FetchReport(command="inspect" if inspected else "fetch", model=FACTS, seconds=1.0).to_json()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _running() -> Json:
    return {"running": {"startedAt": _now()}}


def _waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def _backing_off(pod: Json, container: Json) -> Json:
    metadata = pod["metadata"]
    who = f"{container['name']} pod={metadata['name']}_{metadata['namespace']}({metadata['uid']})"
    return _waiting("CrashLoopBackOff", f"back-off 40s restarting failed container={who}")


def _ended(code: int, reason: str, message: str = "") -> Json:
    told = {"exitCode": int(code), "reason": reason, "startedAt": _now(), "finishedAt": _now()}
    return {"terminated": told | ({"message": message} if message else {})}


def _container(
    container: Json, state: Json, *, ready: bool = False, last: Json | None = None, restarts: int = 0
) -> Json:
    waits = "waiting" in state
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "" if waits and not restarts else f"{container['image']}@sha256:{'0' * 64}",
        "ready": ready,
        "started": ready and "running" in state,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def _status(
    pod: Json,
    phase: str,
    *,
    init: list[Json],
    containers: list[Json],
    initialized: bool = True,
    ready: bool = False,
) -> Json:
    now = _now()
    done = phase == "Succeeded"

    def condition(kind: str, holds: bool, reason: str = "") -> Json:
        told = {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": now}
        return told | ({"reason": reason} if reason and not holds else {})

    unready = "PodCompleted" if done else "ContainersNotReady"
    return {
        "phase": phase,
        "startTime": now,
        "initContainerStatuses": init,
        "containerStatuses": containers,
        "conditions": [
            condition("PodReadyToStartContainers", not done),
            condition("PodScheduled", True),
            condition("Initialized", initialized, "ContainersNotInitialized"),
            condition("ContainersReady", ready, unready),
            condition("Ready", ready, unready),
        ],
    }
