"""Pods that have to be on one node, since a claim of theirs can be on one alone."""

from collections.abc import Mapping
from typing import Any, Final

from slm_operator.crd.names import selector
from slm_operator.crd.resource import SLMDeployment

_HOSTNAME: Final = "kubernetes.io/hostname"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def beside_serving(pod: Mapping[str, Any], resource: SLMDeployment) -> dict[str, Any]:
    """The pod spec with serving pods as its neighbours, beside what the spec's own affinity asks for.

    The scheduler lets the first of pods that are to be beside each other go where it fits.
    """
    term = {"labelSelector": {"matchLabels": selector(resource.name)}, "topologyKey": _HOSTNAME}
    affinity = pod.get("affinity", {})
    pods = affinity.get("podAffinity", {})
    required = [*pods.get(_REQUIRED, ()), term]
    return {**pod, "affinity": {**affinity, "podAffinity": {**pods, _REQUIRED: required}}}
