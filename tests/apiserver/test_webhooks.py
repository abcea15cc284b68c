"""Webhooks that rewrite what the operator asks for, or the pods that come of it: it serves, tells, and rests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.api import Api
from tests.apiserver.operator import Audit, Operator, slm, until
from tests.apiserver.webhook import Rule, Webhook, image_from, refusal, sidecar
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver

Hook = Callable[[str, Rule], Webhook]
BAD = {"name": "m", "source": "https://models.example.com/bad-checksum.gguf", "sha256": "b" * 64}
PLAIN = {"containers": [{"name": "main", "image": "plain:1"}]}


def pod(name: str = "p") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": PLAIN}


def serves(api: Api, name: str = "a") -> bool:
    return api.condition(name).get("status") == "True"


def test_a_webhook_rewrites_the_images_of_a_deployment(api: Api, webhook: Hook, plane: ControlPlane) -> None:
    webhook("deployments", image_from("mirror.example.com"))
    plane.kubectl("-n", api.namespace, "create", "deployment", "d", "--image=plain:1")
    made = api.get("Deployment", "d")
    assert made is not None
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "mirror.example.com/plain:1"


def test_a_webhook_adds_a_sidecar_to_a_pod(api: Api, webhook: Hook) -> None:
    webhook("pods", sidecar)
    made = api.send("POST", api.path("Pod"), pod())
    assert [each["name"] for each in made["spec"]["containers"]] == ["main", "istio-proxy"]


def test_a_webhook_refuses_a_pod(api: Api, webhook: Hook) -> None:
    webhook("pods", refusal("pods need an owner"))
    answer = api.send("POST", api.path("Pod"), pod())
    assert answer["code"] == 403
    assert answer["message"] == 'admission webhook "tests.example.com" denied the request: pods need an owner'


def test_a_webhook_is_over_with_its_context(api: Api, tmp_path: Path) -> None:
    with Webhook(api, tmp_path, "pods", refusal("pods need an owner")):
        pass
    until("pods are made", lambda: api.send("POST", api.path("Pod"), pod())["kind"] == "Pod")


def test_a_rewritten_image_of_the_deployment_serves_and_is_told(
    api: Api, webhook: Hook, operator: Operator, plane: ControlPlane
) -> None:
    """Kyverno's registry rewrite: what was rewritten is named, and not fought for."""
    webhook("deployments", image_from("mirror.example.com"))
    api.apply(slm("a", api.namespace))
    until("it serves", lambda: serves(api), 30)
    Audit(plane).settled(api.namespace)
    status = (api.get("SLMDeployment", "a") or {})["status"]
    (contended,) = (each for each in status["conditions"] if each["type"] == "Contended")
    assert contended["reason"] == "RewrittenAtAdmission"
    assert "spec.template.spec.containers[serve].image" in contended["message"]
    asked = Audit(plane)
    assert operator.stop() == 0
    operator.start()
    assert not asked.settled(api.namespace, seconds=6), "a restart at rest writes"
    api.apply(slm("a", api.namespace, runtime={"contextLength": 1024}))
    generation = (api.get("SLMDeployment", "a") or {})["metadata"]["generation"]

    def follows() -> bool:
        status = (api.get("SLMDeployment", "a") or {})["status"]
        return status.get("observedGeneration") == generation and serves(api)

    until("an edit is served", follows, 30)


@pytest.mark.parametrize("rule", [sidecar, image_from("mirror.example.com")], ids=["sidecar", "image"])
def test_a_rewritten_pod_serves_and_rests(
    api: Api, webhook: Hook, operator: Operator, plane: ControlPlane, rule: Rule
) -> None:
    webhook("pods", rule)
    api.apply(slm("a", api.namespace))
    until("it serves", lambda: serves(api), 30)
    asked = Audit(plane)
    assert not asked.settled(api.namespace)


@pytest.mark.parametrize("rule", [sidecar, image_from("mirror.example.com")], ids=["sidecar", "image"])
def test_a_fault_of_a_rewritten_pod_shows_as_it_is(
    api: Api, webhook: Hook, operator: Operator, rule: Rule
) -> None:
    """Istio's sidecar and Kyverno's rewritten image don't hide what fetch says."""
    webhook("pods", rule)
    api.apply(slm("a", api.namespace, model=BAD))
    until("it says so", lambda: api.reason("a") == "ChecksumMismatch", 15)
    assert api.reason("a", "ModelReady") == "ChecksumMismatch"
