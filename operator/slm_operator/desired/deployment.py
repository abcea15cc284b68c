"""The Deployment. A template that was rendered from the same inputs is kept: an operator upgrade rolls no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from slm_contract.report import ModelFacts
from slm_operator.crd.names import (
    DECISION_ANNOTATION,
    FACTS_ANNOTATION,
    GROUP,
    INPUTS_ANNOTATION,
    SITE_ANNOTATION,
    selector,
)
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.inputs import Rendering, child, inputs_digest, shares_volume, site_digest
from slm_operator.desired.pod import pod_template, start_seconds
from slm_operator.digest import digest
from slm_operator.model.known import facts_to_json
from slm_operator.snapshot import Document

TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
"""Digest of the pod template as it was rendered: tells a hand's edit from another operator's rendering."""
_KEPT: Final = (
    TEMPLATE_ANNOTATION,
    INPUTS_ANNOTATION,
    SITE_ANNOTATION,
    DECISION_ANNOTATION,
    FACTS_ANNOTATION,
)
FETCH_SECONDS: Final = 3600
"""Time that a download may take before the Deployment calls itself stuck; on top of what loading may take."""


@dataclass(frozen=True)
class RenderedDeployment:
    intent: dict[str, Any]
    digest: str
    """Of the intent, with the template's digest in place of a template that was kept."""


def rendered_deployment(rendering: Rendering, facts: Mapping[str, ModelFacts]) -> RenderedDeployment:
    """A Deployment whose template is rendered now."""
    template = pod_template(rendering)
    annotations = {
        TEMPLATE_ANNOTATION: digest(template),
        INPUTS_ANNOTATION: inputs_digest(rendering.resource, rendering.hardware_class),
        SITE_ANNOTATION: site_digest(rendering.settings),
        DECISION_ANNOTATION: rendering.record.to_json(),
    }
    if facts:
        annotations[FACTS_ANNOTATION] = facts_to_json(facts)
    return _deployment(
        rendering.resource,
        template,
        annotations,
        recreate=_exclusive(rendering),
        seconds=_progress_seconds(rendering),
    )


def kept_deployment(
    resource: SLMDeployment, live: Document, rendering: Rendering | None
) -> RenderedDeployment:
    """The Deployment as it is, with what doesn't touch its pods brought up to date.

    Where this version renders the template as it was rendered, that is the intent, and a hand's edit is put back. Where it
    doesn't, another version rendered it, and the live template is the intent.
    """
    annotations = live["metadata"].get("annotations", {})
    kept = {key: annotations[key] for key in _KEPT if key in annotations}
    template = live["spec"]["template"]
    recreate = live["spec"].get("strategy", {}).get("type") == "Recreate"
    seconds = live["spec"].get("progressDeadlineSeconds", FETCH_SECONDS)
    if rendering is not None:
        again = pod_template(rendering)
        recreate, seconds = _exclusive(rendering), _progress_seconds(rendering)
        if digest(again) == kept.get(TEMPLATE_ANNOTATION):
            template = again
    return _deployment(resource, template, kept, recreate=recreate, seconds=seconds)


def _exclusive(rendering: Rendering) -> bool:
    """Whether the pods need what only one of them can have at a time: it must be given back before the next one starts."""
    return rendering.hardware_class.resource is not None or not shares_volume(rendering.resource.spec.cache)


def _progress_seconds(rendering: Rendering) -> int:
    return FETCH_SECONDS + start_seconds(rendering.facts)


def _deployment(
    resource: SLMDeployment,
    template: Mapping[str, Any],
    annotations: Mapping[str, str],
    *,
    recreate: bool,
    seconds: int,
) -> RenderedDeployment:
    intent = child(resource, "apps/v1", "Deployment", resource.name)
    intent["metadata"]["annotations"] = dict(annotations)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    intent["spec"] = {
        "replicas": resource.replicas,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": seconds,
        "strategy": {"type": "Recreate"} if recreate else rolling,
        "selector": {"matchLabels": selector(resource.name)},
    }
    name = digest({"intent": intent, "template": annotations.get(TEMPLATE_ANNOTATION)})
    intent["spec"]["template"] = template
    return RenderedDeployment(intent, name)
