"""Pods that the cluster doesn't let be made: the status says why in the API server's own words, and it heals."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.api import Api, Document
from tests.apiserver.operator import Audit, Operator, slm, until
from tests.apiserver.webhook import Rule, Webhook, network_init, refusal
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver

Hook = Callable[[str, Rule], Webhook]
SECONDS = 15
"""Until it has to be told; a Job's controller tries again only after ten seconds, then twenty."""
HEALS = 90
INSPECTED: dict[str, Any] = {"resources": None}
"""A Job's pod comes first."""
SERVED: dict[str, Any] = {}
WAYS = [pytest.param(INSPECTED, id="inspect"), pytest.param(SERVED, id="serve")]


def quota(api: Api) -> Callable[[], None]:
    """No pods at all; returns what takes it away."""
    made = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-pods"}}
    path = f"/api/v1/namespaces/{api.namespace}/resourcequotas"
    api.send("POST", path, made | {"spec": {"hard": {"pods": "0"}}})
    until("the quota counts", lambda: "hard" in api.send("GET", f"{path}/no-pods").get("status", {}))
    return lambda: api.send("DELETE", f"{path}/no-pods") and None


def limit_range(api: Api) -> Callable[[], None]:
    """Less memory a container than any of ours asks for."""
    made = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}}
    path = f"/api/v1/namespaces/{api.namespace}/limitranges"
    api.send("POST", path, made | {"spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}})
    until(
        "the limit counts",
        lambda: api.send("POST", api.path("Pod") + "?dryRun=All", big())["kind"] == "Status",
    )
    return lambda: api.send("DELETE", f"{path}/small") and None


def big() -> Document:
    resources = {"limits": {"memory": "2Mi"}}
    spec = {"containers": [{"name": "main", "image": "plain:1", "resources": resources}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big"}, "spec": spec}


def restrict(plane: ControlPlane, api: Api) -> None:
    plane.kubectl("label", "namespace", api.namespace, "pod-security.kubernetes.io/enforce=restricted")
    refused = big()
    until(
        "Pod Security is enforced",
        lambda: api.send("POST", api.path("Pod") + "?dryRun=All", refused)["kind"] == "Status",
    )


def told(api: Api, words: str) -> None:
    """Ready isn't true, and says why."""
    until(f"Ready says {words!r}", lambda: words in api.condition("a").get("message", ""), SECONDS)
    assert api.condition("a")["status"] == "False"


def healed(api: Api) -> None:
    until("it serves", lambda: api.condition("a").get("status") == "True", HEALS)


@pytest.mark.parametrize("spec", WAYS)
def test_a_quota_on_pods_is_told_and_heals(api: Api, operator: Operator, spec: dict[str, Any]) -> None:
    lift = quota(api)
    api.apply(slm("a", api.namespace, **spec))
    told(api, "exceeded quota: no-pods")
    lift()
    healed(api)


@pytest.mark.parametrize("spec", WAYS)
def test_a_limit_range_is_told_and_heals(api: Api, operator: Operator, spec: dict[str, Any]) -> None:
    lift = limit_range(api)
    api.apply(slm("a", api.namespace, **spec))
    told(api, "maximum memory usage per Container is 1Mi")
    lift()
    healed(api)


@pytest.mark.parametrize("spec", WAYS)
def test_a_policy_that_refuses_pods_is_told_and_heals(
    api: Api, operator: Operator, webhook: Hook, spec: dict[str, Any]
) -> None:
    policy = webhook("pods", refusal("every pod names its cost centre"))
    api.apply(slm("a", api.namespace, **spec))
    told(api, "every pod names its cost centre")
    policy.rule = lambda _: None
    healed(api)


@pytest.mark.parametrize("spec", WAYS)
def test_pod_security_that_refuses_an_injected_container_is_told_and_heals(
    plane: ControlPlane, api: Api, operator: Operator, webhook: Hook, spec: dict[str, Any]
) -> None:
    """Our own pods pass; what a webhook adds to them need not."""
    restrict(plane, api)
    mesh = webhook("pods", network_init)
    api.apply(slm("a", api.namespace, **spec))
    told(api, 'violates PodSecurity "restricted:latest"')
    mesh.rule = lambda _: None
    healed(api)


@pytest.mark.parametrize("spec", WAYS)
def test_our_own_pods_pass_restricted_pod_security(
    plane: ControlPlane, api: Api, operator: Operator, spec: dict[str, Any]
) -> None:
    restrict(plane, api)
    api.apply(slm("a", api.namespace, **spec))
    healed(api)


def test_a_restart_takes_nothing_back_of_what_was_told(
    plane: ControlPlane, api: Api, operator: Operator
) -> None:
    """What keeps a Job's pods from being made is known again before the first decision."""
    quota(api)
    api.apply(slm("a", api.namespace, **INSPECTED))
    told(api, "exceeded quota: no-pods")
    Audit(plane).settled(api.namespace)
    audit = Audit(plane)
    assert operator.stop() == 0
    operator.start()
    assert not audit.settled(api.namespace, seconds=6)
    assert audit.told(api.namespace) == 0
    assert api.reason("a") == "FailedCreate"
