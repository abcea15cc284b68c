"""The chart in front of a real API server: what it accepts, what the operator may then do, and what stays."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.generate import CHART
from tests.chart.rendering import EVERYTHING, NAMESPACE
from tests.cluster import ControlPlane, HarnessError, chart, tools

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.skipif(sys.platform != "linux", reason="the API server and etcd are built for Linux only"),
]

GROUP = "slm-operator.io"
CRD = "customresourcedefinition/slmdeployments.slm-operator.io"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:slm-operator"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as started:
        for namespace in (NAMESPACE, "team-a", "team-b"):
            started.kubectl("create", "namespace", namespace)
        yield started


@pytest.fixture
def server(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The API server, with nothing of the chart in it before and after."""
    yield plane
    for release in json.loads(plane.helm("list", "--all-namespaces", "--output", "json")):
        plane.helm("uninstall", release["name"], "--namespace", release["namespace"])
    plane.kubectl("delete", "--ignore-not-found", CRD)


def install(server: ControlPlane, *flags: str | Path, name: str = "slm-operator") -> str:
    return server.helm("install", name, str(CHART), "--namespace", NAMESPACE, *map(str, flags))


def may(
    server: ControlPlane,
    verb: str,
    resource: str,
    namespace: str | None,
    *,
    group: str = "",
    subresource: str = "",
    name: str = "",
) -> bool:
    """Whether the operator's account may; namespace None is the whole cluster."""
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "name": name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": OPERATOR,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {**attributes, "namespace": namespace or ""},
        },
    }
    answer = server.kubectl("create", "--filename", "-", "--output", "json", input=json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])


def test_everything_is_accepted(server: ControlPlane, tmp_path: Path) -> None:
    for kind in ("servicemonitors", "prometheusrules"):
        server.kubectl("apply", "--server-side", "--filename", str(tools.monitoring_crd(kind)))
    values = chart.write(EVERYTHING, tmp_path / "values.yaml")
    install(server, "--values", values)
    kinds = "deployment,service,serviceaccount,configmap,networkpolicy,servicemonitor,role,rolebinding"
    found = json.loads(server.kubectl("get", kinds, "--namespace", NAMESPACE, "--output", "json"))
    own = {each["kind"] for each in found["items"] if each["metadata"]["name"].startswith("slm-operator")}
    assert len(own) == len(kinds.split(","))


def test_the_operators_pod_is_admitted_where_pods_are_restricted(server: ControlPlane) -> None:
    install(server)
    server.kubectl(
        "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite"
    )
    deployment = json.loads(
        server.kubectl("get", "deployment", "slm-operator", "--namespace", NAMESPACE, "--output", "json")
    )
    pod = {"apiVersion": "v1", "kind": "Pod", **deployment["spec"]["template"]}
    pod["metadata"] = {"name": "operator", "namespace": NAMESPACE}
    server.kubectl("create", "--dry-run=server", "--filename", "-", input=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"].pop("capabilities")
    with pytest.raises(HarnessError, match="violates PodSecurity"):
        server.kubectl("create", "--dry-run=server", "--filename", "-", input=json.dumps(pod))


def test_rights_in_cluster_mode(server: ControlPlane) -> None:
    install(server)
    for verb in ("list", "watch", "create", "patch", "delete"):
        assert may(server, verb, "deployments", None, group="apps")
    assert may(server, "watch", "slmdeployments", None, group=GROUP)
    assert may(server, "patch", "slmdeployments", None, group=GROUP, subresource="status")
    assert not may(server, "patch", "slmdeployments", "team-a", group=GROUP)
    assert may(server, "create", "secrets", "team-a")
    for verb in ("get", "list", "watch", "patch", "update", "delete"):
        assert not may(server, verb, "secrets", "team-a")
    assert not may(server, "delete", "pods", "team-a")
    assert not may(server, "get", "configmaps", "team-a")
    lease = {"group": "coordination.k8s.io"}
    assert may(server, "create", "leases", NAMESPACE, **lease)
    assert may(server, "update", "leases", NAMESPACE, name="slm-operator", **lease)
    assert not may(server, "update", "leases", NAMESPACE, name="other", **lease)
    assert not may(server, "create", "leases", "team-a", **lease)


def test_rights_in_namespaced_mode(server: ControlPlane) -> None:
    install(server, "--set", "watchNamespaces={team-a}")
    for resource, group in (("deployments", "apps"), ("services", ""), ("slmdeployments", GROUP)):
        assert may(server, "watch", resource, "team-a", group=group)
        assert not may(server, "watch", resource, "team-b", group=group)
        assert not may(server, "watch", resource, None, group=group)
    assert may(server, "watch", "nodes", None)
    assert may(server, "create", "secrets", "team-a")
    assert not may(server, "create", "secrets", "team-b")


def smallest_manifest(notes: str) -> str:
    """What the notes tell people to apply."""
    return notes.partition("<<EOF\n")[2].partition("EOF\n")[0]


def test_the_notes_tell_a_manifest_that_works(server: ControlPlane) -> None:
    manifest = smallest_manifest(install(server))
    assert yaml.safe_load(manifest)["kind"] == "SLMDeployment"
    server.kubectl("apply", "--dry-run=server", "--filename", "-", input=manifest)


def test_an_upgrade_with_the_same_values_changes_nothing(server: ControlPlane) -> None:
    install(server)

    def objects() -> dict[str, Any]:
        kinds = "deployment,service,serviceaccount,configmap,role,rolebinding"
        found = json.loads(server.kubectl("get", kinds, "--namespace", NAMESPACE, "--output", "json"))
        return {
            f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
            for each in found["items"]
        }

    before = objects()
    server.helm("upgrade", "slm-operator", str(CHART), "--namespace", NAMESPACE)
    assert objects() == before


def test_models_outlive_the_release(server: ControlPlane) -> None:
    manifest = smallest_manifest(install(server))
    server.kubectl("apply", "--namespace", "team-a", "--filename", "-", input=manifest)
    server.helm("uninstall", "slm-operator", "--namespace", NAMESPACE)
    assert server.kubectl("get", "slm", "--namespace", "team-a", "--output", "name").strip()
    assert "No resources found" not in server.kubectl("get", CRD)
    install(server)
    server.helm("uninstall", "slm-operator", "--namespace", NAMESPACE)
    with pytest.raises(HarnessError, match="invalid ownership metadata"):
        install(server, name="other")
    install(server, "--take-ownership", name="other")
    assert server.kubectl("get", "slm", "--namespace", "team-a", "--output", "name").strip()


def made_by(server: ControlPlane, version: str) -> None:
    """Let the CRD be that of another version of the chart, with a field that this one doesn't know."""
    newer = {"type": "string", "description": "Of another version."}
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/another"
    changes = [
        {"op": "add", "path": path, "value": newer},
        {"op": "replace", "path": "/metadata/labels/app.kubernetes.io~1version", "value": version},
    ]
    server.kubectl("patch", CRD, "--type=json", "--patch", json.dumps(changes))


@pytest.mark.parametrize(("version", "kept"), [("99.0.0", True), ("99.0.0-rc.1", True), ("0.0.1", False)])
def test_an_older_chart_leaves_the_crd_of_a_newer_one(server: ControlPlane, version: str, kept: bool) -> None:
    """Else what only the newer one knows is cut out of every SLMDeployment that is written next."""
    install(server)
    made_by(server, version)
    for _ in range(2):
        server.helm("upgrade", "slm-operator", str(CHART), "--namespace", NAMESPACE)
        live = json.loads(server.kubectl("get", CRD, "--output", "json"))
        schema = live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert ("another" in schema["properties"]) is kept
        assert (live["metadata"]["labels"]["app.kubernetes.io/version"] == version) is kept
        assert live["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_second_release_leaves_the_crd_to_the_first(server: ControlPlane) -> None:
    install(server, "--set", "watchNamespaces={team-a}")
    own = ("crds.enabled=false", "watchNamespaces={team-b}", "rbac.aggregate=false")
    install(server, *(word for flag in own for word in ("--set", flag)), name="second")
    server.helm("uninstall", "second", "--namespace", NAMESPACE)
    server.kubectl("get", CRD)
