"""The pure core in one call: Snapshot in, Decision out. Nothing here reads a clock, a file or the network."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from slm_operator.crd.names import COPIES, MODEL_LABEL, claim_name, copies_name
from slm_operator.crd.resource import Metadata, SLMDeployment, SpecError, parse_resource, parse_status
from slm_operator.crd.spec import Recover
from slm_operator.desired.objects import Desired, desired_objects
from slm_operator.faults import Fault
from slm_operator.model.known import drifted, drifted_companions, newest_removal, reported_facts
from slm_operator.observed.faults import deployment_faults, dropped_volumes, job_faults, pod_faults
from slm_operator.observed.pods import (
    has_component,
    heard_from,
    pods_of_jobs,
    pods_of_template,
    volume_wait,
    volumes_of,
)
from slm_operator.obstacles import (
    contended_fields,
    look_again,
    pod_template_clash,
    refused_write,
    taken_names,
    unselected_monitor,
)
from slm_operator.placement.choose import artifact_for
from slm_operator.plan import compare, make_plan, owned_by
from slm_operator.pod.overrides import clashes
from slm_operator.pod.volumes import claim_of
from slm_operator.revision.history import History, read_history
from slm_operator.snapshot import ChildRef, Decision, Document, Plan, Snapshot, ref_of
from slm_operator.status.report import report, unreadable
from slm_operator.status.view import View
from slm_operator.target.imported import with_imported
from slm_operator.target.rollback import resumed, way_back
from slm_operator.target.scaling import Means, find_means, scaling_faults, with_replicas
from slm_operator.target.target import Target, find_target


def decide(snapshot: Snapshot) -> Decision:
    """What to do and what to say.

    Idempotent: fed with its own plan and status, it answers the same, and nothing to do.
    """
    try:
        resource = parse_resource(snapshot.resource)
    except SpecError as error:
        generation = Metadata.model_validate(snapshot.resource["metadata"]).generation
        now = snapshot.now.replace(microsecond=0)
        return Decision(Plan(), unreadable(parse_status(snapshot.resource), generation, now, str(error)))
    # As many as nodes: nothing but how many have failed is asked of them.
    copiers = tuple(each for each in snapshot.pods if has_component(each, COPIES))
    others = tuple(each for each in snapshot.pods if not has_component(each, COPIES))
    snapshot = replace(snapshot, pods=others, reports=heard_from(others, snapshot.reports))
    seen = _Seen.of(snapshot, resource)
    found = find_means(resource, snapshot.settings, snapshot.served, seen.ours)
    scaled = found if isinstance(found, Means) else None
    resource = with_replicas(resource, scaled, seen.deployment)
    ailing = (
        *pod_faults(seen.pods, snapshot.reports, snapshot.clues, snapshot.now),
        *(deployment_faults(seen.deployment) if seen.deployment is not None else ()),
        *seen.dropped(),
    )
    target = find_target(snapshot, resource, seen.history, seen.pods, ailing)
    stuck = volume_wait(seen.pods, snapshot.now)
    desired = desired_objects(
        snapshot,
        resource,
        target,
        seen.history,
        children=seen.ours,
        pods=seen.pods,
        key_missing=stuck == 0,
        scaled=scaled,
    )
    wanted = {ChildRef("Deployment", resource.name), *map(ref_of, desired.objects)}
    taken = {ref: each for ref, each in seen.others.items() if ref in wanted}
    children = compare(desired.objects, seen.ours)
    plan = make_plan(
        children,
        seen.ours,
        taken=taken,
        key=desired.key,
        spared=_needed(snapshot, resource, seen, target),
        yielding=snapshot.yielding,
    )
    faults = (
        *(refused_write(each) for each in snapshot.refusals),
        *taken_names(taken, resource),
        *target.faults,
        *(ailing if target.revision is seen.history.current else ()),
        *_of_jobs(snapshot, seen, desired),
        *contended_fields(children, snapshot.yielding),
        *(pod_template_clash(each) for each in clashes(resource, snapshot.settings)),
        *_of_monitor(snapshot, desired),
        *scaling_faults(resource, found, target.revision, snapshot.nodes),
    )
    view = _view(snapshot, resource, seen, target, desired, plan, faults, copiers)
    waits = [target.requeue_after, stuck or None, look_again(taken, resource)]
    return Decision(
        plan,
        report(view),
        requeue_after=min((wait for wait in waits if wait is not None), default=None),
        contested=tuple(each.ref for each in children if each.contested),
        at_rest=not plan and view.at_rest,
        upgrading=target.upgrading,
        awaits_turn=target.awaits_turn,
        watches_nodes=not view.ready or resource.spec.hardware.fallback.recover is not Recover.NEVER,
    )


@dataclass(frozen=True)
class _Seen:
    """What of the snapshot is this SLMDeployment's."""

    ours: Mapping[ChildRef, Document]
    others: Mapping[ChildRef, Document]
    """Somebody else's objects under names that we want."""
    deployment: Document | None
    history: History
    pods: tuple[Document, ...]
    """Serving pods of the live template."""

    @classmethod
    def of(cls, snapshot: Snapshot, resource: SLMDeployment) -> "_Seen":
        uid = resource.metadata.uid
        ours = {ref: each for ref, each in snapshot.children.items() if owned_by(each, uid)}
        live = ours.get(ChildRef("Deployment", resource.name))
        history = with_imported(read_history(ours, live), snapshot, resource, live)
        history = resumed(history, live, resource, snapshot.now)
        return cls(
            ours=ours,
            others={ref: each for ref, each in snapshot.children.items() if ref not in ours},
            deployment=live,
            history=history,
            pods=() if live is None else pods_of_template(snapshot.pods, live["spec"]["template"]),
        )

    def dropped(self) -> tuple[Fault, ...]:
        """What the API server has left out of the Deployment."""
        if self.deployment is None or self.history.current is None:
            return ()
        return tuple(dropped_volumes(self.deployment, self.history.current.template))


def _needed(snapshot: Snapshot, resource: SLMDeployment, seen: _Seen, target: Target) -> frozenset[ChildRef]:
    """What something that runs, or may run again, still mounts; and revisions that this version can't read."""
    specs = [pod.get("spec", {}) for pod in snapshot.pods]
    specs += [
        each["spec"]["template"]["spec"]
        for ref, each in seen.ours.items()
        if ref.kind in {"Deployment", "DaemonSet", "Job"}
    ]
    back = way_back(resource, seen.history, target.revision, target.rollout)
    if back is not None:
        specs.append(back.template["spec"])
    mounted = {
        ChildRef(kind, name) for spec in specs for kind, names in volumes_of(spec).items() for name in names
    }
    unread = {
        ref for ref in seen.ours if ref.kind == "ControllerRevision" and ref.name not in seen.history.known
    }
    return frozenset(mounted | unread)


def _with_claim(pods: Iterable[Document], claim: str | None) -> Iterator[Document]:
    """Those that mount a claim."""
    return (each for each in pods if claim in volumes_of(each.get("spec", {}))["PersistentVolumeClaim"])


def _of_monitor(snapshot: Snapshot, desired: Desired) -> Iterator[Fault]:
    if snapshot.scrapers is not None:
        for each in desired.objects:
            if each["kind"] == "ServiceMonitor":
                yield from unselected_monitor(each, snapshot.scrapers)


def _of_jobs(snapshot: Snapshot, seen: _Seen, desired: Desired) -> Iterator[Fault]:
    """What ails the Jobs that are waited for."""
    if not desired.waiting:
        return
    jobs = [each for each in desired.objects if each["kind"] == "Job"]
    keys = [str(each["spec"]["template"]["metadata"]["labels"][MODEL_LABEL]) for each in jobs]
    yield from pod_faults(pods_of_jobs(snapshot.pods, keys), snapshot.reports, snapshot.clues, snapshot.now)
    live = [seen.ours[ref_of(each)] for each in jobs if ref_of(each) in seen.ours]
    yield from job_faults(live, snapshot.clues)


def _view(
    snapshot: Snapshot,
    resource: SLMDeployment,
    seen: _Seen,
    target: Target,
    desired: Desired,
    plan: Plan,
    faults: tuple[Fault, ...],
    copiers: tuple[Document, ...],
) -> View:
    selected = target.placement.selected if target.placement is not None else None
    if selected is not None:
        artifact = selected.artifact
    elif target.revision is not None:
        artifact = target.revision.artifact
    else:
        settings = snapshot.settings
        artifact = artifact_for(resource, settings.classes[0], settings.catalog)
    if target.revision is not None and target.revision.artifact.key == artifact.key:
        artifact = target.revision.artifact
    return View(
        resource=resource,
        settings=snapshot.settings,
        now=snapshot.now.replace(microsecond=0),
        deployment=seen.deployment,
        service=seen.ours.get(ChildRef("Service", resource.name)),
        claim=seen.ours.get(ChildRef("PersistentVolumeClaim", claim_name(resource.name))),
        pods=seen.pods,
        reports=snapshot.reports,
        faults=faults,
        waiting=desired.waiting,
        changing=any(step.ref.kind == "Deployment" for step in plan.steps),
        served=snapshot.served,
        routes=tuple(
            each for ref, each in sorted(seen.ours.items()) if ref.kind in {"HTTPRoute", "InferencePool"}
        ),
        scaler=next(
            (
                each
                for ref, each in seen.ours.items()
                if ref.kind in {"ScaledObject", "HorizontalPodAutoscaler"}
            ),
            None,
        ),
        revision=target.revision,
        rollout=target.rollout,
        history=seen.history,
        placement=target.placement,
        artifact=artifact,
        fetched_facts=reported_facts(seen.pods).get(artifact.key),
        latest=drifted(snapshot.pods, artifact),
        moved=drifted_companions(
            snapshot.pods, () if target.revision is None else target.revision.companions
        ),
        copies=seen.ours.get(ChildRef("DaemonSet", copies_name(resource.name))),
        copiers=copiers,
        removal=newest_removal(_with_claim(snapshot.pods, claim_of(resource))),
    )
