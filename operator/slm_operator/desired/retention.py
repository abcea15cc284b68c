"""Which models of a claim go when another one is pulled into it: told to the pull Job alone, so that it rolls no pod."""

from collections.abc import Iterator
from typing import Any

from slm_contract import places
from slm_contract.config import ModelConfig
from slm_contract.retention import Retention
from slm_operator.crd.names import job_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.digest import digest
from slm_operator.model.known import pinned
from slm_operator.placement.choose import candidates
from slm_operator.placement.companions import companions_of
from slm_operator.pod.volumes import SHARED_GRACE, read_only
from slm_operator.revision.history import History
from slm_operator.settings import Settings
from slm_operator.target.rollback import way_back
from slm_operator.target.target import Target


def retention(
    resource: SLMDeployment, settings: Settings, target: Target, history: History
) -> Retention | None:
    """What a pull keeps beside the model that it brings; None where everything stays."""
    cache = resource.spec.cache
    shared = cache.claim_name is not None
    if read_only(cache) or (cache.unused_models or ("Retain" if shared else "Delete")) == "Retain":
        return None
    folders = {each.folder for each in _in_use(resource, settings, target, history)}
    return Retention(keep=tuple(sorted(folders)), grace_seconds=SHARED_GRACE if shared else 0)


def retaining(job: dict[str, Any], resource: SLMDeployment, wanted: Retention | None) -> dict[str, Any]:
    """The pull Job, told so. What it is told is a part of its template, and thus of its name."""
    if wanted is None:
        return job
    template = job["spec"]["template"]
    fetch, *others = template["spec"]["containers"]
    told = {**fetch, "env": [*fetch["env"], {"name": places.RETENTION_ENV, "value": wanted.to_json()}]}
    template = {**template, "spec": {**template["spec"], "containers": [told, *others]}}
    name = job_name(resource.name, "pull", digest(template))
    return {
        **job,
        "metadata": {**job["metadata"], "name": name},
        "spec": {**job["spec"], "template": template},
    }


def _in_use(
    resource: SLMDeployment, settings: Settings, target: Target, history: History
) -> Iterator[ModelConfig]:
    """Of the revisions that run or may run again, and all that the spec names: its class may change at any time."""
    back = way_back(resource, history, target.revision, target.rollout)
    revisions = [each for each in (history.current, target.revision, back) if each is not None]
    facts = {key: each for revision in revisions for key, each in revision.facts.items()}
    for revision in revisions:
        yield from (revision.artifact, *revision.companions)
    named, _ = candidates(resource, settings)
    artifacts = [each.artifact for each in (*named, *target.headers)]
    companions = (each for candidate in named for each in companions_of(resource, candidate.artifact))
    for artifact in (*artifacts, *companions):
        yield artifact
        yield pinned(artifact, facts)
