"""The pure core in one call: Snapshot in, Decision out. Nothing here reads a clock, a file or the network."""

from slm_operator.crd.names import COMPONENT_LABEL, DECISION_ANNOTATION, MODEL_LABEL
from slm_operator.crd.resource import Metadata, SLMDeployment, SpecError, parse_resource, parse_status
from slm_operator.desired.objects import Desired, desired_objects
from slm_operator.model.known import kept_facts, reported_facts, runtime_config
from slm_operator.placement.choose import artifact_for
from slm_operator.placement.history import Record, parse_record
from slm_operator.plan import make_plan, owned_by, taken
from slm_operator.resolve import Resolution, resolve
from slm_operator.snapshot import ChildRef, Decision, Document, Plan, Snapshot
from slm_operator.status.faults import Fault, creation_fault, find_fault, is_ready, volume_wait
from slm_operator.status.report import report, unreadable
from slm_operator.status.view import View


def decide(snapshot: Snapshot) -> Decision:
    """What to do and what to say.

    Idempotent: fed with its own plan and status, it answers the same, and nothing to do.
    """
    now = snapshot.now.replace(microsecond=0)
    try:
        resource = parse_resource(snapshot.resource)
    except SpecError as error:
        generation = Metadata.model_validate(snapshot.resource["metadata"]).generation
        return Decision(Plan(), unreadable(parse_status(snapshot.resource), generation, now, str(error)))
    live = _own_deployment(snapshot, resource)
    serving = _current_pods(snapshot, live)
    pod_fault = find_fault(serving, snapshot.reports, snapshot.now)
    failing = pod_fault is not None and not any(is_ready(pod) for pod in serving)
    resolution = resolve(snapshot, resource, live, failing=failing)
    stuck = volume_wait(serving, snapshot.now)
    desired = desired_objects(snapshot, resource, resolution, live, key_missing=stuck == 0)
    uid = resource.metadata.uid
    plan = make_plan(desired.objects, snapshot.children, uid=uid, create=desired.create)
    pods = (*serving, *_job_pods(snapshot, desired)) if desired.waiting else serving
    fault = (
        _refused(snapshot)
        or _name_taken(taken(desired.objects, snapshot.children, uid))
        or resolution.problem
        or find_fault(pods, snapshot.reports, snapshot.now)
        or (creation_fault(live) if live is not None else None)
    )
    status = report(_view(snapshot, resource, resolution, desired, plan, live, pods, fault))
    waits = [wait for wait in (resolution.requeue_after, stuck or None) if wait is not None]
    return Decision(plan, status, requeue_after=min(waits, default=None))


def _own_deployment(snapshot: Snapshot, resource: SLMDeployment) -> Document | None:
    live = snapshot.children.get(ChildRef("Deployment", resource.name))
    return live if live is not None and owned_by(live, resource.metadata.uid) else None


def _current_pods(snapshot: Snapshot, live: Document | None) -> tuple[Document, ...]:
    """Serving pods of the live template; those of an earlier one are on their way out, and so is what ails them."""
    if live is None:
        return ()
    template = live["spec"]["template"]["spec"]
    return tuple(
        pod
        for pod in snapshot.pods
        if pod["metadata"].get("labels", {}).get(COMPONENT_LABEL, "runtime") == "runtime"
        and "deletionTimestamp" not in pod["metadata"]
        and (not pod.get("spec", {}).get("containers") or _made_from(pod["spec"], template))
    )


def _made_from(pod_spec: Document, template: Document) -> bool:
    images = [
        {container.get("name"): container.get("image") for container in spec.get("containers", ())}
        for spec in (pod_spec, template)
    ]
    return images[0] == images[1] and runtime_config(pod_spec) == runtime_config(template)


def _job_pods(snapshot: Snapshot, desired: Desired) -> tuple[Document, ...]:
    """Pods of the Jobs that are waited for."""
    keys = {
        str(each.document["spec"]["template"]["metadata"]["labels"][MODEL_LABEL])
        for each in desired.objects
        if each.ref.kind == "Job"
    }
    return tuple(
        pod
        for pod in snapshot.pods
        if pod["metadata"].get("labels", {}).get(MODEL_LABEL) in keys
        and "deletionTimestamp" not in pod["metadata"]
    )


def _refused(snapshot: Snapshot) -> Fault | None:
    refusal = snapshot.refusal
    if refusal is None:
        return None
    return Fault(
        reason=refusal.reason,
        message=f"{refusal.ref.kind} {refusal.ref.name}: {refusal.message}",
        remedy="take away what stands in the way; it is tried again",
        stalled=refusal.permanent,
    )


def _name_taken(refs: tuple[ChildRef, ...]) -> Fault | None:
    if not refs:
        return None
    names = ", ".join(f"{ref.kind} {ref.name}" for ref in refs)
    return Fault(
        reason="NameTaken",
        message=f"{names} belongs to somebody else and is left alone",
        remedy="delete or rename it, or give the SLMDeployment another name",
        stalled=True,
    )


def _view(
    snapshot: Snapshot,
    resource: SLMDeployment,
    resolution: Resolution,
    desired: Desired,
    plan: Plan,
    live: Document | None,
    pods: tuple[Document, ...],
    fault: Fault | None,
) -> View:
    record = _record(resolution, live)
    name = record.hardware_class if record is not None else None
    chosen = next((each for each in snapshot.settings.classes if each.name == name), None)
    selected = resolution.placement.selected if resolution.placement is not None else None
    artifact = (
        selected.artifact
        if selected is not None
        else artifact_for(resource, chosen or snapshot.settings.classes[0])
    )
    return View(
        resource=resource,
        settings=snapshot.settings,
        now=snapshot.now.replace(microsecond=0),
        deployment=live,
        pods=pods,
        reports=snapshot.reports,
        fault=fault,
        waiting=desired.waiting,
        changing=any(document["kind"] == "Deployment" for document in plan.apply),
        monitoring=snapshot.monitoring,
        record=record,
        placement=resolution.placement,
        hardware_class=chosen,
        artifact=artifact,
        kept_facts=kept_facts(live).get(artifact.key),
        fetched_facts=reported_facts(pods).get(artifact.key),
    )


def _record(resolution: Resolution, live: Document | None) -> Record | None:
    """What was decided now, else what the live pods were made from."""
    if resolution.rendering is not None:
        return resolution.rendering.record
    return (
        None
        if live is None
        else parse_record(live["metadata"].get("annotations", {}).get(DECISION_ANNOTATION))
    )
