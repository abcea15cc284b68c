"""`spec.podTemplate` over a rendered pod template: the user's fields beside the operator's, never in their place."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from slm_operator.crd.affinity import TopologySpreadConstraint
from slm_operator.crd.names import selector
from slm_operator.crd.podtemplate import OWN_LABELS, OWN_PREFIX, PodTemplate
from slm_operator.crd.resource import SLMDeployment
from slm_operator.settings import Settings

OWN_ANNOTATIONS: Final = ("kubectl.kubernetes.io/default-container",)
REVISION_KEY: Final = "pod-template-hash"
"""The Deployment controller's label of a revision's pods: while one is rolled out, each is spread for itself."""
EVERYWHERE: Final = TopologySpreadConstraint(
    max_skew=1, topology_key="kubernetes.io/hostname", when_unsatisfiable="ScheduleAnyway"
)
"""Also for one replica: a template that follows their number would roll the pods whenever it is scaled."""
_PLAIN: Final = ("priority_class_name", "runtime_class_name", "scheduler_name")


def overridden(template: Mapping[str, Any], resource: SLMDeployment, settings: Settings) -> dict[str, Any]:
    """The template with what `spec.podTemplate` adds; what :func:`clashes` names is left out.

    Templates of Jobs get all but the spread, which is one of replicas.
    """
    wanted = resource.spec.pod_template or PodTemplate()
    metadata, spec = {**template["metadata"]}, {**template["spec"]}
    result = {**template, "metadata": metadata, "spec": spec}
    _merge_below(metadata, "labels", {key: each for key, each in wanted.labels.items() if not _owned(key)})
    _merge_below(
        metadata, "annotations", {key: each for key, each in wanted.annotations.items() if not _owned(key)}
    )
    spec.update(wanted.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(_PLAIN)))
    if wanted.service_account_name in settings.allowed_service_accounts:
        spec["serviceAccountName"] = wanted.service_account_name
    if wanted.affinity is not None:
        spec["affinity"] = wanted.affinity.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if wanted.security_context is not None:
        given = wanted.security_context.model_dump(mode="json", by_alias=True, exclude_none=True)
        spec["securityContext"] = {**spec.get("securityContext", {}), **given}
    secrets = [
        *spec.get("imagePullSecrets", ()),
        *({"name": each.name} for each in wanted.image_pull_secrets),
    ]
    if secrets:
        spec["imagePullSecrets"] = list({each["name"]: each for each in secrets}.values())
    serving = selector(resource.name)
    if serving.items() <= metadata["labels"].items():
        spec["topologySpreadConstraints"] = [
            _spread(each, serving) for each in wanted.topology_spread_constraints or (EVERYWHERE,)
        ]
    return result


def clashes(resource: SLMDeployment, settings: Settings) -> tuple[str, ...]:
    """Fields of `spec.podTemplate` that the pods don't get, each with the reason."""
    wanted = resource.spec.pod_template
    return () if wanted is None else tuple(_clashes(wanted, settings))


def _clashes(wanted: PodTemplate, settings: Settings) -> Iterator[str]:
    for field, given in (("labels", wanted.labels), ("annotations", wanted.annotations)):
        for key in given:
            if _owned(key):
                yield f"spec.podTemplate.{field}[{key}] is the operator's own"
    account = wanted.service_account_name
    if account is not None and account not in settings.allowed_service_accounts:
        yield (
            f"spec.podTemplate.serviceAccountName {account} isn't among the ServiceAccounts that the operator's "
            "configuration allows (runtime.allowedServiceAccounts)"
        )


def _owned(key: str) -> bool:
    """Refused by the API server as a rule; not in an object that is older than the rule."""
    return key.startswith(OWN_PREFIX) or key in OWN_LABELS or key in OWN_ANNOTATIONS


def _merge_below(metadata: dict[str, Any], field: str, given: Mapping[str, str]) -> None:
    if given:
        metadata[field] = {**given, **metadata.get(field, {})}


def _spread(constraint: TopologySpreadConstraint, serving: Mapping[str, str]) -> dict[str, Any]:
    dumped: dict[str, Any] = constraint.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if constraint.label_selector is None:
        dumped["labelSelector"] = {"matchLabels": dict(serving)}
        dumped["matchLabelKeys"] = list(dict.fromkeys((*constraint.match_label_keys, REVISION_KEY)))
    return dumped
