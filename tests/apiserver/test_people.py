"""What people do with kubectl beside `apply`: it has the effect that they expect, or status says why not."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.api import Api, Document
from tests.apiserver.operator import ROOT, Audit, slm, until
from tests.apiserver.test_writes import wait_ready
from tests.cluster import ControlPlane, tools

pytestmark = pytest.mark.apiserver

SELECTOR = "app.kubernetes.io/instance=a"


@pytest.fixture
def api(plane: ControlPlane, namespace: str) -> Api:
    return Api(plane, namespace)


@pytest.fixture
def kubectl(plane: ControlPlane, namespace: str) -> Callable[..., str]:
    def run(*words: str, **more: Any) -> str:
        return plane.kubectl("-n", namespace, *words, **more)

    return run


@pytest.fixture
def served(plane: ControlPlane, operator: object, namespace: str, apply: Callable[..., None]) -> None:
    """`a` serves, and nothing more is to be written."""
    apply(slm("a", namespace))
    wait_ready(plane, namespace, "a")
    Audit(plane).settled(namespace)


def deployment(api: Api) -> Document:
    found = api.get("Deployment", "a")
    assert found is not None
    return found


def uids(api: Api, kind: str) -> set[str]:
    return {each["metadata"]["uid"] for each in api.list(kind, SELECTOR)}


def give_back(plane: ControlPlane, namespace: str) -> None:
    """Run what docs/troubleshooting.md says."""
    (commands,) = re.findall(
        r"```sh\n(NAME=.*?)```", (ROOT / "docs" / "troubleshooting.md").read_text(), re.DOTALL
    )
    kubectl = f'kubectl() {{ {tools.kubernetes.path("kubectl")} -n {namespace} "$@"; }}'
    script = "\n".join(("set -eu", kubectl, commands.replace("NAME=my-model", "NAME=a")))
    subprocess.run(
        ["bash", "-c", script], env=os.environ | {"KUBECONFIG": str(plane.kubeconfig)}, check=True, timeout=60
    )


def wait_rolled_out(api: Api) -> None:
    def rolled_out() -> bool:
        live = deployment(api)
        status, wanted = live["status"], live["spec"]["replicas"]
        counts = [status.get(each, 0) for each in ("replicas", "updatedReplicas", "readyReplicas")]
        return status.get("observedGeneration") == live["metadata"]["generation"] and counts == [wanted] * 3

    until("the Deployment is rolled out", rolled_out)


@pytest.mark.usefixtures("served")
def test_scaling_the_slmdeployment_is_how_it_is_scaled(api: Api, kubectl: Callable[..., str]) -> None:
    before = uids(api, "Pod")
    kubectl("scale", "slm/a", "--replicas=3")
    until("three pods", lambda: len(uids(api, "Pod")) == 3)
    assert before < uids(api, "Pod")
    assert api.get("PodDisruptionBudget", "a")
    kubectl("scale", "slm/a", "--replicas=1")
    until("one pod", lambda: len(uids(api, "Pod")) == 1)
    until("no budget in the way of a drain", lambda: not api.get("PodDisruptionBudget", "a"))


@pytest.mark.usefixtures("served")
def test_scaling_the_deployment_is_put_back(api: Api, kubectl: Callable[..., str]) -> None:
    kubectl("scale", "deployment/a", "--replicas=3")
    until("it is put back", lambda: deployment(api)["spec"]["replicas"] == 1)
    wait_rolled_out(api)
    assert api.condition("a", "Contended") == {}, "once is no fight"


@pytest.mark.usefixtures("served")
def test_who_keeps_scaling_the_deployment_is_named(api: Api, kubectl: Callable[..., str]) -> None:
    def again() -> bool:
        if deployment(api)["spec"]["replicas"] == 1:
            kubectl("scale", "deployment/a", "--replicas=2")
        return api.condition("a", "Contended").get("status") == "True"

    until("it says so", again)
    contended = api.condition("a", "Contended")
    assert contended["reason"] == "FieldsTaken"
    assert "kubectl" in contended["message"]
    assert "spec.replicas" in contended["message"]


@pytest.mark.usefixtures("served")
def test_an_undone_rollout_is_put_back(
    api: Api, namespace: str, apply: Callable[..., None], kubectl: Callable[..., str]
) -> None:
    """The spec says what runs: to go back is to go back there."""
    apply(slm("a", namespace, runtime={"contextLength": 1024}))
    until("it is changed", lambda: "1024" in str(deployment(api)["spec"]["template"]))
    wait_rolled_out(api)
    template = deployment(api)["spec"]["template"]
    kubectl("rollout", "undo", "deployment/a")
    until("it is put back", lambda: deployment(api)["spec"]["template"] == template)
    wait_rolled_out(api)
    until("it serves", lambda: api.reason("a") == "Serving")


@pytest.mark.usefixtures("served")
def test_a_restart_makes_pods_anew_and_stays(
    plane: ControlPlane, api: Api, namespace: str, kubectl: Callable[..., str]
) -> None:
    before, audit = uids(api, "Pod"), Audit(plane)
    kubectl("rollout", "restart", "deployment/a")
    until("the pods are new", lambda: uids(api, "Pod") and not before & uids(api, "Pod"))
    wait_rolled_out(api)
    assert set(audit.settled(namespace)) <= {"slmdeployments/status"}
    assert (
        "kubectl.kubernetes.io/restartedAt" in deployment(api)["spec"]["template"]["metadata"]["annotations"]
    )
    assert api.reason("a") == "Serving"
    assert api.condition("a", "Contended") == {}


@pytest.mark.usefixtures("served")
def test_annotations_and_labels_of_people_stay(
    plane: ControlPlane, api: Api, namespace: str, kubectl: Callable[..., str]
) -> None:
    audit = Audit(plane)
    for target in ("slm/a", "deployment/a", "service/a"):
        kubectl("annotate", target, "team.example/contact=ada")
        kubectl("label", target, "team.example/name=analytics")
    assert not audit.settled(namespace)
    for kind in ("Deployment", "Service"):
        metadata = (api.get(kind, "a") or {})["metadata"]
        assert metadata["annotations"]["team.example/contact"] == "ada"
        assert metadata["labels"]["team.example/name"] == "analytics"


@pytest.mark.usefixtures("served")
def test_a_forced_replacement_is_another_one_of_the_name(
    plane: ControlPlane, api: Api, namespace: str, kubectl: Callable[..., str]
) -> None:
    before = uids(api, "Deployment")
    kubectl("replace", "--force", "-f", "-", input=json.dumps(slm("a", namespace)))
    until("its children are its own", lambda: uids(api, "Deployment") and uids(api, "Deployment") != before)
    wait_ready(plane, namespace, "a")
    (owner,) = deployment(api)["metadata"]["ownerReferences"]
    assert owner["uid"] == (api.get("SLMDeployment", "a") or {})["metadata"]["uid"]


@pytest.mark.usefixtures("served")
def test_orphans_serve_on_and_come_back_to_whom_a_person_gives_them(
    plane: ControlPlane,
    api: Api,
    namespace: str,
    apply: Callable[..., None],
    kubectl: Callable[..., str],
) -> None:
    kinds = ("Deployment", "Pod", "Service", "Secret")
    before = {kind: uids(api, kind) for kind in kinds}
    kubectl("delete", "slm", "a", "--cascade=orphan")
    apply(slm("a", namespace))
    until("it says so", lambda: api.reason("a") == "NameTaken")
    assert "left behind" in api.condition("a")["message"]
    assert {kind: uids(api, kind) for kind in kinds} == before

    give_back(plane, namespace)
    until("it serves", lambda: api.reason("a") == "Serving")
    assert {kind: uids(api, kind) for kind in kinds} == before

    apply(slm("a", namespace, runtime={"contextLength": 1024}))
    until("the pods are new", lambda: uids(api, "Pod") and not before["Pod"] & uids(api, "Pod"))
    until("it serves", lambda: api.reason("a") == "Serving")
    uid = (api.get("SLMDeployment", "a") or {})["metadata"]["uid"]
    assert f"owner-{uid}" in str(deployment(api)["spec"]["template"]["spec"]["volumes"])
    assert f"owner-{uid}" in (api.get("Secret", "a-api-key") or {})["data"]
    kubectl("delete", "slm", "a")
    until("nothing is left", lambda: not any(uids(api, kind) for kind in kinds))
