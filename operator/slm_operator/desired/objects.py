"""Everything that an SLMDeployment is made of. `desired_objects` lists it: that list is the architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_operator.crd.names import claim_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.claim import model_claim
from slm_operator.desired.configmap import ca_bundle
from slm_operator.desired.deployment import kept_deployment, rendered_deployment
from slm_operator.desired.inputs import uses_claim
from slm_operator.desired.jobs import inspect_job, pull_job
from slm_operator.desired.monitor import service_monitor
from slm_operator.desired.secret import key_secret
from slm_operator.desired.service import service
from slm_operator.model.known import model_key
from slm_operator.placement.choose import Candidate
from slm_operator.plan import Intent, intent
from slm_operator.resolve import Resolution
from slm_operator.snapshot import ChildRef, Document, Snapshot


@dataclass(frozen=True)
class Desired:
    """The objects, and what the Deployment waits for where it isn't among them."""

    objects: tuple[Intent, ...]
    create: tuple[dict[str, Any], ...] = ()
    waiting: str | None = None
    """`Inspecting` or `Pulling`: a Job has to end before pods are made from the present spec."""


def desired_objects(
    snapshot: Snapshot,
    resource: SLMDeployment,
    resolution: Resolution,
    live: Document | None,
    *,
    key_missing: bool,
) -> Desired:
    """List every child as it shall be.

    Parameters
    ----------
    live
        The Deployment, if it is there and ours.
    key_missing
        Whether pods wait for a volume, which may be the key Secret.
    """
    settings = snapshot.settings
    jobs, waiting = _jobs(snapshot, resource, resolution, live)
    if resolution.rendering is not None and not resolution.settled and waiting is None:
        deployment = rendered_deployment(resolution.rendering, resolution.facts or {})
    elif live is not None:
        deployment = kept_deployment(resource, live, resolution.rendering if resolution.settled else None)
    else:
        deployment = None
    plain = (
        ca_bundle(resource, settings),
        model_claim(resource),
        *jobs,
        service(resource),
        service_monitor(resource, served=snapshot.monitoring),
    )
    objects = [intent(each) for each in plain if each is not None]
    create: tuple[dict[str, Any], ...] = ()
    if deployment is not None:
        objects.append(intent(deployment.intent, deployment.digest))
        secret = key_secret(resource, snapshot.new_key)
        create = (secret,) if secret is not None and (key_missing or not _mounts(live, secret)) else ()
    return Desired(tuple(objects), create, waiting)


def _jobs(
    snapshot: Snapshot, resource: SLMDeployment, resolution: Resolution, live: Document | None
) -> tuple[list[dict[str, Any]], str | None]:
    """The Jobs that have to end before the Deployment is made or changed, and the name of that wait."""
    settings, pending = snapshot.settings, resolution.placement is not None and resolution.placement.pending
    image = resource.spec.runtime.image
    if uses_claim(resource.spec.cache):
        if resolution.rendering is not None and not resolution.settled:
            chosen = resolution.rendering
            candidates: tuple[Candidate, ...] = (Candidate(chosen.hardware_class, chosen.artifact),)
        else:
            candidates = resolution.headers
        jobs = [
            pull_job(
                resource,
                settings,
                each.hardware_class,
                each.artifact,
                image or each.hardware_class.image or settings.runtime_image,
            )
            for each in candidates
            if not _holds(live, resource, each)
        ]
        unfinished = any(not _succeeded(snapshot.children, job) for job in jobs)
        return jobs, "Pulling" if unfinished or pending else None
    return [
        inspect_job(
            resource,
            settings,
            each.hardware_class,
            each.artifact,
            image or each.hardware_class.image or settings.runtime_image,
        )
        for each in resolution.headers
    ], "Inspecting" if pending else None


def _mounts(live: Document | None, secret: Document) -> bool:
    """Whether the Deployment already has the key: then it was made before."""
    volumes = [] if live is None else live["spec"]["template"]["spec"].get("volumes", ())
    return any(volume.get("secret", {}).get("secretName") == secret["metadata"]["name"] for volume in volumes)


def _holds(live: Document | None, resource: SLMDeployment, candidate: Candidate) -> bool:
    """Whether the Deployment already serves this model from this claim: then it was pulled before."""
    if live is None:
        return False
    template = live["spec"]["template"]
    name = resource.spec.cache.claim_name or claim_name(resource.name)
    claims = {
        volume["persistentVolumeClaim"].get("claimName")
        for volume in template["spec"].get("volumes", ())
        if "persistentVolumeClaim" in volume
    }
    return name in claims and model_key(template) == candidate.artifact.key


def _succeeded(children: Mapping[ChildRef, Document], job: Document) -> bool:
    live = children.get(ChildRef("Job", str(job["metadata"]["name"])))
    return live is not None and int(live.get("status", {}).get("succeeded") or 0) > 0
