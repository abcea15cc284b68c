"""The Deployment: the template of a revision, and how its pods are replaced by those of the next."""

from typing import Any

from slm_operator.crd.names import ROLLOUT_ANNOTATION, selector
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.pod.budget import rollout_seconds
from slm_operator.pod.volumes import shares_volumes
from slm_operator.revision.revision import Revision
from slm_operator.revision.rollout import Rollout

_SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
_ONE_BY_ONE = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
_RECREATE = {"type": "Recreate"}


def deployment(
    resource: SLMDeployment,
    revision: Revision,
    rollout: Rollout,
    before: Revision | None,
    *,
    autoscaled: bool = False,
) -> dict[str, Any]:
    """The intent.

    Parameters
    ----------
    before
        The revision that served last, whose pods may still hold what the new ones need.
    autoscaled
        Whether the replicas are an autoscaler's.
    """
    intent = child(resource, "apps/v1", "Deployment", resource.name)
    intent["metadata"]["annotations"] = {ROLLOUT_ANNOTATION: rollout.to_json()}
    intent["spec"] = {
        **({} if autoscaled else {"replicas": resource.replicas}),
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": rollout_seconds(resource, revision.own_facts),
        "strategy": _strategy(resource, revision, before),
        "selector": {"matchLabels": selector(resource.name)},
        "template": revision.template,
    }
    return intent


def _strategy(resource: SLMDeployment, revision: Revision, before: Revision | None) -> dict[str, Any]:
    """What only one pod can have at a time is given back before the next one starts; all of it never at once."""
    if not shares_volumes(resource.spec.cache, revision.artifact):
        return _RECREATE
    device = revision.hardware_class.device
    held = before is None or before.hardware_class.device == device
    if device is None or not held:
        return _SURGE
    return _ONE_BY_ONE if resource.replicas > 1 else _RECREATE
