"""A revision from a Deployment whose own can't be looked up.

An earlier version made it, or somebody deleted the ControllerRevision. The live template is taken as it is: neither an
upgrade of the operator nor a lost record rolls a pod.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from slm_contract.report import ModelFacts
from slm_operator.crd.names import GROUP, revision_name
from slm_operator.crd.resource import SLMDeployment
from slm_operator.digest import digest
from slm_operator.model.known import runtime_config
from slm_operator.observed.pods import parse_time
from slm_operator.placement.choose import artifact_for
from slm_operator.placement.rejection import Kept, Rejected
from slm_operator.revision.digests import placement_digest, site_digest, spec_digest
from slm_operator.revision.history import History
from slm_operator.revision.revision import FittedMemory, Revision
from slm_operator.revision.rollout import Rollout
from slm_operator.settings import HardwareClass, Settings
from slm_operator.snapshot import Document, Snapshot

_DECISION: Final = f"{GROUP}/decision"
_INPUTS: Final = f"{GROUP}/inputs"
_SITE: Final = f"{GROUP}/site"
_FACTS: Final = f"{GROUP}/model-facts"
"""What version 0.1 kept on the Deployment."""


class _Decision(Kept):
    hardware_class: str
    reason: str
    rejected: tuple[Rejected, ...] = ()
    placement: str
    image: str
    context_length: int | None = None
    memory: FittedMemory


def with_imported(
    history: History, snapshot: Snapshot, resource: SLMDeployment, deployment: Document | None
) -> History:
    """The history with a current revision, wherever there is a Deployment."""
    if deployment is None or history.current is not None:
        return history
    revision = _imported(resource, snapshot.settings, deployment, history.next_number)
    if history.rollout is None:
        rollout = Rollout(revision=revision.name, since=_made(deployment, snapshot))
    else:
        # Whether it has served was noted under its name: it isn't given up for a record that is lost.
        lost = {"revision": revision.name, "fallback": revision.name}
        rollout = history.rollout.model_copy(update=lost)
    return replace(history, current=revision, rollout=rollout)


def _imported(resource: SLMDeployment, settings: Settings, deployment: Document, number: int) -> Revision:
    annotations = deployment["metadata"].get("annotations") or {}
    template: Mapping[str, Any] = deployment["spec"]["template"]
    decision = _decision(annotations) or _seen(template)
    chosen = next((each for each in settings.classes if each.name == decision.hardware_class), None)
    chosen = chosen or HardwareClass(name=decision.hardware_class, family=decision.hardware_class)
    spec = annotations.get(_INPUTS, "").partition(".")[0]
    config = runtime_config(template["spec"])
    revision = Revision(
        hardware_class=chosen,
        artifact=artifact_for(resource, chosen, settings.catalog) if config is None else config.model,
        image=decision.image,
        context_length=decision.context_length,
        memory=decision.memory,
        reason=decision.reason,
        rejected=decision.rejected,
        facts=_facts(annotations),
        spec=spec or spec_digest(resource),
        placement=decision.placement or placement_digest(resource.spec),
        site=annotations.get(_SITE) or site_digest(settings, resource.spec.model),
        template=dict(template),
    )
    # Not labelled: a label would roll the pods.
    name = revision_name(resource.name, digest(revision.data)[:10])
    return revision.model_copy(update={"name": name, "number": number})


def _decision(annotations: Mapping[str, str]) -> _Decision | None:
    try:
        return _Decision.model_validate_json(annotations.get(_DECISION, ""))
    except ValidationError:
        return None


def _seen(template: Mapping[str, Any]) -> _Decision:
    """What can be read off the template itself."""
    config = runtime_config(template["spec"])
    serve: Mapping[str, Any] = next(
        (each for each in template["spec"]["containers"] if each.get("name") == "serve"), {}
    )
    request = str((serve.get("resources") or {}).get("requests", {}).get("memory", "0"))
    return _Decision(
        hardware_class="unknown" if config is None else config.hardware.hardware_class,
        reason="as the running pods have it",
        placement="",
        image=str(serve.get("image", "")),
        context_length=None if config is None else config.context_length,
        memory=FittedMemory(request=request, explanation=f"requested {request}"),
    )


def _facts(annotations: Mapping[str, str]) -> dict[str, ModelFacts]:
    try:
        kept = json.loads(annotations.get(_FACTS, "{}"))
        return {str(key): ModelFacts.model_validate(each) for key, each in dict(kept).items()}
    except (ValueError, TypeError):
        return {}


def _made(deployment: Document, snapshot: Snapshot) -> Any:
    created = deployment["metadata"].get("creationTimestamp")
    return parse_time(created) if created else snapshot.now.replace(microsecond=0)
