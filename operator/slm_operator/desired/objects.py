"""Everything that an SLMDeployment is made of. `desired_objects` lists it: that list is the architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_contract.config import ModelConfig
from slm_operator.crd.names import key_secret_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.autoscaler import autoscaler
from slm_operator.desired.claim import model_claim
from slm_operator.desired.configmap import ca_bundle
from slm_operator.desired.copies import copies
from slm_operator.desired.deployment import deployment
from slm_operator.desired.disruption import disruption_budget
from slm_operator.desired.gateway import routing
from slm_operator.desired.jobs import inspect_job, pull_job
from slm_operator.desired.monitor import service_monitor
from slm_operator.desired.retention import retaining, retention
from slm_operator.desired.revisions import controller_revision
from slm_operator.desired.secret import key_secret
from slm_operator.desired.service import service
from slm_operator.model.known import runtime_config
from slm_operator.model.source import claim_of_source
from slm_operator.observed.pods import nodes_of, volumes_of
from slm_operator.pod.volumes import claim_of, one_pod_only, shares_volumes, uses_claim
from slm_operator.revision.history import History
from slm_operator.revision.revision import Revision
from slm_operator.snapshot import ChildRef, Document, Snapshot, ref_of
from slm_operator.target.scaling import Means, autoscaled, load_seconds
from slm_operator.target.target import Target
from slm_operator.target.wanted import image_of


@dataclass(frozen=True)
class Desired:
    """The objects, and what the Deployment waits for where it isn't among them."""

    objects: tuple[dict[str, Any], ...]
    """In the order in which they are written."""
    running: Revision | None
    """The revision that the Deployment among them is made from; None where there is none."""
    key: dict[str, Any] | None = None
    """The key Secret, where it has to be made."""
    waiting: str | None = None
    """`Inspecting` or `Pulling`: a Job has to end before pods are made from the present spec."""


def desired_objects(
    snapshot: Snapshot,
    resource: SLMDeployment,
    target: Target,
    history: History,
    *,
    children: Mapping[ChildRef, Document],
    pods: tuple[Document, ...],
    key_missing: bool,
    scaled: Means | None = None,
) -> Desired:
    """List every child as it shall be.

    Parameters
    ----------
    children
        Those that are ours.
    pods
        Of the current revision.
    key_missing
        Whether pods wait for a volume, which may be the key Secret.
    scaled
        By what an autoscaler has its replicas.
    """
    live = children.get(ChildRef("Deployment", resource.name))
    jobs, waiting = _jobs(snapshot, resource, target, history, children=children, pods=pods)
    running = history.current if waiting is not None else target.revision
    objects: list[dict[str, Any] | None] = [
        ca_bundle(resource, snapshot.settings),
        model_claim(resource, children),
        *jobs,
        *(
            controller_revision(resource, each)
            for each in history.kept(history.current, history.fallback, running)
        ),
    ]
    key = None
    if running is not None and target.rollout is not None:
        rollout = target.rollout if running is target.revision or history.rollout is None else history.rollout
        before = history.known.get(rollout.fallback or "")
        objects.append(deployment(resource, running, rollout, before, autoscaled=autoscaled(scaled, live)))
        before_it = None if live is None else live["spec"]["template"]
        if _mounts_key(running.template, resource) and (key_missing or not _mounts_key(before_it, resource)):
            key = key_secret(resource, snapshot.new_key)
    objects += [
        copies(resource, snapshot.settings, target.revision),
        service(resource),
        disruption_budget(resource),
        service_monitor(resource, snapshot.settings.monitoring, served="ServiceMonitor" in snapshot.served),
        autoscaler(
            resource,
            snapshot.settings,
            scaled if running is not None else None,
            load_seconds(resource, snapshot.reports),
        ),
        *routing(resource, snapshot.settings, snapshot.served),
    ]
    return Desired(tuple(each for each in objects if each is not None), running, key, waiting)


def _jobs(
    snapshot: Snapshot,
    resource: SLMDeployment,
    target: Target,
    history: History,
    *,
    children: Mapping[ChildRef, Document],
    pods: tuple[Document, ...],
) -> tuple[list[dict[str, Any]], str | None]:
    """The Jobs that have to end before the Deployment is made or changed, and the name of that wait."""
    settings, revision, current = snapshot.settings, target.revision, history.current
    headers = [
        inspect_job(
            resource,
            settings,
            each.hardware_class,
            each.artifact,
            image_of(resource, settings, each.hardware_class),
            beside_pods=_held_on_a_node(resource, current, each.artifact, pods),
        )
        for each in target.headers
    ]
    if target.pending:
        return headers, "Inspecting"
    if (
        not uses_claim(resource.spec.cache)
        or target.placement is None
        or revision is None
        or revision is current
    ):
        # What runs, or is gone back to, was pulled before; its pods fetch what is missing.
        return [], None
    if _holds(current, resource, revision) or (pods and one_pod_only(resource.spec.cache)):
        # A volume that only one pod can have is the old one's until it goes: the new one fetches into it by itself.
        return [], None
    beside = nodes_of(pods) if _mounts_claim(current, claim_of(resource)) else ()
    pull = pull_job(
        resource,
        settings,
        revision.hardware_class,
        revision.artifact,
        revision.image,
        adapters=revision.adapters,
        projector=revision.projector,
        beside_pods=bool(beside) and "ReadWriteOnce" in resource.spec.cache.access_modes,
    )
    pull = retaining(pull, resource, retention(resource, settings, target, history))
    if _succeeded(children, pull):
        return [pull], None
    # The headers that this was decided by stay known until it is written down.
    return [*(each for each in headers if ref_of(each) in children), pull], "Pulling"


def _mounts_key(template: Document | None, resource: SLMDeployment) -> bool:
    """Whether pods of the template have the key: if the live ones do, it was made before."""
    if template is None:
        return False
    return key_secret_name(resource.name) in volumes_of(template["spec"])["Secret"]


def _mounts_claim(revision: Revision | None, claim: str | None) -> bool:
    if revision is None:
        return False
    return claim in volumes_of(revision.template["spec"])["PersistentVolumeClaim"]


def _held_on_a_node(
    resource: SLMDeployment, current: Revision | None, artifact: ModelConfig, pods: tuple[Document, ...]
) -> bool:
    """Whether serving pods have the claim that an artifact lies on, which only their node can have."""
    claim = claim_of_source(artifact.source)
    if claim is None or shares_volumes(resource.spec.cache, artifact):
        return False
    return _mounts_claim(current, claim) and bool(nodes_of(pods))


def _holds(current: Revision | None, resource: SLMDeployment, revision: Revision) -> bool:
    """Whether this model is served from this claim already: then it was pulled before."""
    if current is None or not _mounts_claim(current, claim_of(resource)):
        return False
    config = runtime_config(current.template["spec"])
    held = () if config is None else (config.model, *config.companions)
    return set(revision.folders) <= {each.folder for each in held}


def _succeeded(children: Mapping[ChildRef, Document], job: Document) -> bool:
    live = children.get(ChildRef("Job", str(job["metadata"]["name"])))
    return live is not None and int(live.get("status", {}).get("succeeded") or 0) > 0
