"""The conditions, each a check over the same view; the list at the end is their order in the status.

Ready, Reconciling and Stalled follow kstatus: the last two are there only while they are true.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from slm_contract.report import Acceleration
from slm_operator.crd.quantities import human_bytes
from slm_operator.crd.status import Condition, Status
from slm_operator.model.source import file_name
from slm_operator.status.canaries import canaries, changed
from slm_operator.status.routed import routed
from slm_operator.status.view import Stage, View

Truth = Literal["True", "False", "Unknown"]
Check = Callable[[View], tuple[Truth, str, str] | None]
_OF_SCALERS: Final = frozenset({"AbleToScale", "ScalingActive", "Ready"})
"""Conditions by which a HorizontalPodAutoscaler and a ScaledObject say that they can't do their work."""
_ON_THE_WAY: Final = frozenset({"Inspecting", "Fetching", "Quantizing"})


def stage(view: View) -> Stage:
    """How far it has come, from what has been reported: steps that pass unreported cost no write."""
    name = file_name(view.artifact.source)
    if view.waiting == "Inspecting":
        return Stage("Inspecting", f"reading the header of {name}")
    if view.waiting == "Pulling":
        wanted = view.artifact.quantization
        derived = "" if wanted is None else f", and deriving {wanted} of it"
        return Stage("Fetching", f"fetching {name} into the claim{derived}")
    if view.deployment is None and not view.changing:
        return Stage("Waiting", "nothing has been made yet")
    if view.resource.replicas == 0:
        return Stage("Stopping", "the pods are being taken away")
    for report in view.current_reports:
        state = None if report.download is None else report.download.state
        if state in {"Fetching", "Verifying"}:
            return Stage("Fetching", f"fetching {name}")
        if state == "Quantizing":
            return Stage("Quantizing", f"deriving {view.artifact.quantization} of {name}")
    if any(report.phase == "Loading" for report in view.current_reports):
        return Stage("Loading", f"loading {name}")
    if view.available:
        return Stage("RollingOut", "the serving pods are brought to the present spec, one by one")
    return Stage("Starting", "the pods are starting")


def _ready(view: View) -> tuple[Truth, str, str]:
    if view.ready:
        if view.resource.spec.suspend:
            return "True", "Suspended", "no pod is running, as spec.suspend asks"
        if view.resource.replicas == 0:
            who = "spec.replicas" if view.resource.spec.autoscaling is None else "its autoscaler"
            return "True", "ScaledToZero", f"no pod is running, as {who} asks"
        if view.given_up is not None:
            return "True", "RolledBack", view.given_up.message
        return "True", "Serving", f"{view.artifact.name} is served by all replicas"
    if view.fault is not None:
        return "False", view.fault.reason, f"{view.fault.message}; {view.fault.remedy}"
    step = stage(view)
    return "Unknown", step.reason, step.message


def _reconciling(view: View) -> tuple[Truth, str, str] | None:
    if view.ready or (view.fault is not None and view.fault.stalled):
        return None
    if view.fault is not None:
        return "True", view.fault.reason, view.fault.message
    step = stage(view)
    return "True", step.reason, step.message


def _stalled(view: View) -> tuple[Truth, str, str] | None:
    fault = view.given_up if view.ready else view.fault
    if fault is None or not fault.stalled:
        return None
    return "True", fault.reason, f"{fault.message}; {fault.remedy}"


def _model_ready(view: View) -> tuple[Truth, str, str]:
    if (denied := _denied(view, "ModelReady")) is not None:
        return denied
    served = view.rolled_out and view.available
    if served or (view.current_reports and all(report.command == "serve" for report in view.current_reports)):
        return "True", "Fetched", f"{file_name(view.artifact.source)} is verified and in place"
    if view.rolled_out:
        return "Unknown", "NotFetched", "no pod has fetched it yet"
    step = stage(view)
    return "Unknown", step.reason if step.reason in _ON_THE_WAY else "NotFetched", step.message


def _placed(view: View) -> tuple[Truth, str, str]:
    if (denied := _denied(view, "Placed")) is not None:
        return denied
    if view.placement is not None and view.placement.pending and view.revision is None:
        return "Unknown", "Inspecting", f"{view.placement.reason}; whether the model fits isn't known yet"
    if view.revision is not None:
        return "True", "Selected", view.revision.reason
    return "Unknown", "NotDecided", "no hardware class has been selected"


def _memory_fits(view: View) -> tuple[Truth, str, str]:
    if (denied := _denied(view, "MemoryFits")) is not None:
        return denied
    if view.revision is None:
        return "Unknown", "NotRead", "the model's header hasn't been read yet"
    memory = view.revision.memory
    if not memory.fits:
        return "False", "LessThanEstimated", memory.explanation
    return "True", "Fitted" if memory.weights is not None else "Given", memory.explanation


def _accelerated(view: View) -> tuple[Truth, str, str]:
    if (denied := _denied(view, "Accelerated")) is not None:
        return denied
    chosen = None if view.revision is None else view.revision.hardware_class
    if chosen is None:
        return "Unknown", "NotPlaced", "no hardware class has been selected"
    if chosen.provider == "cpu":
        return "False", "NotRequested", f"the class {chosen.name} has no accelerator"
    for report in view.current_reports:
        seen = report.acceleration
        if seen is not None:
            if seen.degraded:
                return (
                    "False",
                    "Degraded",
                    f"placed on {chosen.name} for {chosen.provider}, it runs on {seen.device}",
                )
            return "True", "AsPlaced", _runs_on(seen)
    kept = next((each for each in view.resource.status.conditions if each.type == "Accelerated"), None)
    if kept is not None and view.rolled_out:
        return kept.status, kept.reason, kept.message
    return "Unknown", "NotReported", "the runtime hasn't said yet what it runs on"


def _runs_on(seen: Acceleration) -> str:
    layers = f", {seen.layers} of {seen.layers_total} layers" if seen.layers_total else ""
    if seen.memory_total is None or seen.memory_free is None:
        return f"{seen.device} by {seen.provider}{layers}"
    taken = human_bytes(seen.memory_total - seen.memory_free)
    return f"{seen.device} by {seen.provider}{layers}, {taken} of its {human_bytes(seen.memory_total)} in use"


def _available(view: View) -> tuple[Truth, str, str]:
    message = f"{view.ready_replicas} of {view.resource.replicas} replicas are ready"
    return ("True", "ReplicasReady", message) if view.available else ("False", "NoReplicaReady", message)


def _progressing(view: View) -> tuple[Truth, str, str]:
    if view.ready:
        return "False", "Complete", "what runs is what the spec asks for"
    if view.fault is not None:
        return ("False" if view.fault.stalled else "True"), view.fault.reason, view.fault.message
    step = stage(view)
    return "True", step.reason, step.message


def _monitoring_ready(view: View) -> tuple[Truth, str, str] | None:
    if not view.resource.spec.observability.service_monitor.enabled:
        return None
    if "ServiceMonitor" not in view.served:
        return (
            "False",
            "KindMissing",
            "the cluster has no ServiceMonitor: install the Prometheus Operator's CRDs",
        )
    fault = view.about("MonitoringReady")
    if fault is not None:
        return "False", fault.reason, f"{fault.message}; {fault.remedy}"
    return "True", "ServiceMonitorMade", "the runtime's metrics are offered to Prometheus"


def _drifting(view: View) -> tuple[Truth, str, str] | None:
    wanted = view.resource.spec.observability.canary
    if not wanted:
        return None
    asked = canaries(view)
    failing = [each for each in asked if not each.passed]
    if failing:
        return "True", "CanaryFailed", "; ".join(map(changed, failing))
    if len(asked) < len(wanted):
        return "Unknown", "NotAsked", f"{len(asked)} of {len(wanted)} canaries have been asked"
    return "False", "AsExpected", "every canary answers as expected"


def _autoscaled(view: View) -> tuple[Truth, str, str] | None:
    wanted = view.resource.spec.autoscaling
    if wanted is None:
        return None
    fault = view.about("Autoscaled")
    if fault is not None:
        return "False", fault.reason, f"{fault.message}; {fault.remedy}"
    if view.resource.spec.suspend:
        return "False", "Suspended", "no pod is running, as spec.suspend asks"
    if view.scaler is None:
        return "Unknown", "NotMade", "nothing scales it before there is something to scale"
    kind, told = str(view.scaler["kind"]), view.scaler.get("status", {}).get("conditions") or ()
    ailing = next(
        (each for each in told if each["type"] in _OF_SCALERS and each["status"] == "False"),
        None,
    )
    if ailing is not None:
        return "False", "ScalerFails", f"{kind}: {ailing.get('reason', '')}: {ailing.get('message', '')}"
    return "True", f"{kind}Made", f"a {kind} keeps between {wanted.min} and {wanted.max} replicas"


def _routed(view: View) -> tuple[Truth, str, str] | None:
    found = routed(view)
    if found is None:
        return None
    truth: Truth = "Unknown" if found[0] is None else "True" if found[0] else "False"
    return truth, *found[1:]


def _told_as_true(condition: str) -> Check:
    """A condition that is there only while something is wrong."""

    def check(view: View) -> tuple[Truth, str, str] | None:
        fault = view.about(condition)
        return None if fault is None else ("True", fault.reason, f"{fault.message}; {fault.remedy}")

    return check


def _source_drifted(view: View) -> tuple[Truth, str, str] | None:
    companions = () if view.revision is None else view.revision.companions
    moved = [(each.source, each.pin, view.moved.get(each.key)) for each in companions]
    found = [
        f"{source} stands for {now.revision or now.digest} now, {pin.revision or pin.digest} was pinned"
        for source, pin, now in ((view.artifact.source, view.artifact.pin, view.latest), *moved)
        if now is not None and pin is not None
    ]
    if not found:
        return None
    follows = view.resource.spec.model.refresh_policy == "OnChange"
    does = (
        "it is rolled out"
        if follows
        else "what was pinned is served on: to follow, write refreshPolicy: OnChange"
    )
    return "True", "SourceMoved", "; ".join((*found, does))


def _denied(view: View, condition: str) -> tuple[Truth, str, str] | None:
    fault = None if view.ready else view.about(condition)
    return None if fault is None else ("False", fault.reason, f"{fault.message}; {fault.remedy}")


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("Ready", _ready),
    ("Reconciling", _reconciling),
    ("Stalled", _stalled),
    ("ModelReady", _model_ready),
    ("Placed", _placed),
    ("MemoryFits", _memory_fits),
    ("Accelerated", _accelerated),
    ("Available", _available),
    ("Progressing", _progressing),
    ("MonitoringReady", _monitoring_ready),
    ("Autoscaled", _autoscaled),
    ("Routed", _routed),
    ("SourceDrifted", _source_drifted),
    ("Drifting", _drifting),
    ("Contended", _told_as_true("Contended")),
    ("Refused", _told_as_true("Refused")),
)


def conditions(view: View) -> tuple[Condition, ...]:
    """All that apply; a condition whose status hasn't changed keeps its time."""
    found = []
    for kind, check in CHECKS:
        answer = check(view)
        if answer is not None:
            found.append(condition(view.resource.status, view.generation, view.now, kind, answer))
    return tuple(found)


def condition(
    live: Status, generation: int, now: datetime, kind: str, answer: tuple[Truth, str, str]
) -> Condition:
    truth, reason, message = answer
    before = next((each for each in live.conditions if each.type == kind), None)
    return Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message[:4096],
        observed_generation=generation,
        last_transition_time=before.last_transition_time
        if before is not None and before.status == truth
        else now,
    )
