"""What is built from a spec that uses every field is what the real API server takes, and keeps whole."""

import json
from typing import Any

import pytest

from slm_operator.crd.names import selector
from slm_operator.crd.resource import SLMDeployment, parse_resource
from slm_operator.desired.child import child
from slm_operator.desired.disruption import disruption_budget
from slm_operator.desired.service import service
from slm_operator.pod.overrides import overridden
from slm_operator.settings import Settings
from tests.apiserver.operator import SETTINGS, slm
from tests.apiserver.test_rules import LOAD_BALANCER, POD_TEMPLATE
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver

SPEC: dict[str, Any] = {
    "replicas": 2,
    "podTemplate": POD_TEMPLATE,
    "endpoint": {
        **LOAD_BALANCER,
        "annotations": {"example.com/internal": "true"},
        "loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"],
    },
}


def deployment(resource: SLMDeployment) -> dict[str, Any]:
    labels = selector(resource.name)
    bare = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "serve", "image": "runtime:1"}]},
    }
    settings = Settings.model_validate({**SETTINGS, "allowedServiceAccounts": ["models"]})
    return {
        **child(resource, "apps/v1", "Deployment", resource.name),
        "spec": {
            "selector": {"matchLabels": labels},
            "template": overridden(bare, resource, settings),
        },
    }


def holds(kept: Any, wanted: Any) -> bool:
    """Whether all that is wanted was kept, beside what the API server filled in."""
    if isinstance(wanted, dict):
        return all(key in kept and holds(kept[key], each) for key, each in wanted.items())
    if isinstance(wanted, list):
        return len(kept) == len(wanted) and all(map(holds, kept, wanted))
    return bool(kept == wanted)


@pytest.mark.parametrize("build", [deployment, disruption_budget, service])
def test_what_is_built_is_kept_whole(plane: ControlPlane, namespace: str, build: Any) -> None:
    plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace, **SPEC)))
    live = json.loads(plane.kubectl("-n", namespace, "get", "slm", "a", "-o", "json"))
    wanted = build(parse_resource(live))
    kept = plane.kubectl("create", "--validate=strict", "-o", "json", "-f", "-", input=json.dumps(wanted))
    assert holds(json.loads(kept), wanted)
