"""The operator's own objects: restricted, probed, and complete in every mode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.generate import CHART, ROOT
from tests.chart.rendering import EVERYTHING, NAMESPACE, OPENSHIFT, ChartRefused, Helm, Render, Rendered
from tests.cluster import chart, tools

CLUSTER_SCOPED = {
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def pod(rendered: Rendered) -> dict[str, Any]:
    spec: dict[str, Any] = rendered.one("Deployment")["spec"]["template"]["spec"]
    return spec


def test_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


def test_objects_are_labelled_and_at_home(rendered: Rendered) -> None:
    for each in rendered.objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "slm-operator", each["kind"]
        assert labels["app.kubernetes.io/instance"] == "slm-operator"
        if each["kind"] in CLUSTER_SCOPED:
            assert "namespace" not in each["metadata"]
        elif each["kind"] not in {"Role", "RoleBinding"}:
            assert each["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("overridden", [False, True])
def test_names_that_look_like_numbers_stay_names(helm: Helm, tmp_path: Path, overridden: bool) -> None:
    number = "4711"
    values: dict[str, Any] = {**EVERYTHING, "watchNamespaces": [number], "priorityClassName": number}
    if overridden:
        values |= {
            "nameOverride": number,
            "fullnameOverride": number,
            "serviceAccount": {"name": number},
            "leaderElection": {"leaseName": number},
        }
    file = chart.write(values, tmp_path / "values.yaml")
    place = ("--namespace", number, "--kube-version", tools.KUBERNETES)
    rendered = Rendered(helm("template", number, CHART, *place, "--values", file))
    found = [scalar for scalar in scalars(rendered.objects) if str(scalar) == number]
    assert len(found) > 30
    assert not [scalar for scalar in found if not isinstance(scalar, str)]


def scalars(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for each in value.values():
                yield from scalars(each)
        case list():
            for each in value:
                yield from scalars(each)
        case _:
            yield value


def test_names_are_unique(rendered: Rendered) -> None:
    keys = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in rendered.objects
    ]
    assert len(set(keys)) == len(keys)


def test_the_pod_meets_pod_security_restricted(rendered: Rendered) -> None:
    spec = pod(rendered)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) - {"name"} <= {"configMap", "emptyDir"} for volume in spec["volumes"])
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert "privileged" not in own
        assert not any("hostPort" in port for port in container["ports"])


def test_the_pod_meets_the_policies_that_clusters_have(rendered: Rendered) -> None:
    spec = pod(rendered)
    assert spec["automountServiceAccountToken"] is True
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        tag = container["image"].partition("@")[0].rpartition(":")[2]
        assert "@sha256:" in container["image"] or tag not in {"", "latest"}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert container["livenessProbe"] != container["readinessProbe"]
        assert "host" not in container["livenessProbe"]["httpGet"]
        assert not any("secretKeyRef" in env.get("valueFrom", {}) for env in container["env"])
    assert all(volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"] if "emptyDir" in volume)


def test_the_operator_never_overlaps_with_itself(rendered: Rendered) -> None:
    spec = rendered.one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_ports_and_selectors_meet(rendered: Rendered) -> None:
    deployment, service = rendered.one("Deployment"), rendered.one("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in pod(rendered)["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert pod(rendered)["containers"][0][probe]["httpGet"]["port"] in ports


def test_flags_are_off_by_default(render: Render) -> None:
    kinds = {each["kind"] for each in render().objects}
    assert not kinds & {"ServiceMonitor", "PrometheusRule", "NetworkPolicy", "PodDisruptionBudget"}


def test_the_service_monitor_finds_the_service(render: Render) -> None:
    rendered = render(EVERYTHING)
    monitor, service = rendered.one("ServiceMonitor"), rendered.one("Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["spec"]["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_network_policy_lets_pass_what_the_operator_needs(render: Render) -> None:
    rendered = render(EVERYTHING)
    policy = rendered.one("NetworkPolicy")["spec"]
    labels = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 6443, 8081}
    assert policy["ingress"][0]["from"] == EVERYTHING["networkPolicy"]["from"]


def test_user_settings_reach_the_pod(render: Render) -> None:
    rendered = render(EVERYTHING)
    template = rendered.one("Deployment")["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "platform"
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    container = template["spec"]["containers"][0]
    assert container["image"] == "ghcr.io/slm-operator/slm-operator@sha256:" + "a" * 64
    assert {"name": "TZ", "value": "UTC"} in container["env"]
    assert {"name": "SLM_LOG_LEVEL", "value": "debug"} in container["env"]


def test_a_user_label_never_breaks_the_selector(render: Render) -> None:
    rendered = render({"podLabels": {"app.kubernetes.io/name": "other"}})
    labels = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert rendered.one("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_openshift_chooses_the_operator_s_user(render: Render) -> None:
    given = pod(render({"podSecurityContext": {"runAsUser": 4711}}, *OPENSHIFT))["securityContext"]
    assert given == {"runAsNonRoot": True, "runAsUser": 4711, "seccompProfile": {"type": "RuntimeDefault"}}
    assert "runAsUser" not in pod(render({}, *OPENSHIFT))["securityContext"]


def test_another_platform_may_choose_the_user(render: Render) -> None:
    nobody = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    assert pod(render(nobody))["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


@pytest.mark.parametrize("path", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.stem)
def test_crds_are_installed_as_they_are_and_kept(render: Render, path: Any) -> None:
    source = yaml.safe_load(path.read_text())
    crd = render().one("CustomResourceDefinition", source["metadata"]["name"])
    assert crd["spec"] == source["spec"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not render({"crds": {"enabled": False}}).kind("CustomResourceDefinition")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"imagee": {}}, "imagee"),
        ({"workers": 0}, "workers"),
        ({"workers": "many"}, "workers"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"image": {"digest": "abc"}}, "digest"),
        ({"runtime": {"image": {"digest": "sha256:12"}}}, "digest"),
        ({"runtime": {"runAsUser": 0}}, "runAsUser"),
        ({"runtime": {"runAsUser": "nobody"}}, "runAsUser"),
        ({"admissionPolicy": {"enabled": "yes"}}, "admissionPolicy"),
        ({"watchNamespaces": "team-a"}, "watchNamespaces"),
        ({"watchNamespaces": ["Team A"]}, "watchNamespaces"),
        ({"fetch": {"caBundle": "/etc/ssl/ca.pem"}}, "caBundle"),
        ({"fetch": {"allowedSources": []}}, "allowedSources"),
        ({"fetch": {"allowedSources": ["models.corp"]}}, "allowedSources"),
        ({"fetch": {"env": {"A B": "1"}}}, "A B"),
        ({"hardwareClasses": {"gpu-nvidia": {"ressource": {}}}}, "ressource"),
        ({"hardwareClasses": {"own": {"order": 1}}}, "family"),
        ({"hardwareClasses": {"own": {"family": "gpu", "resource": {"name": "gpu"}}}}, "resource"),
        ({"hardwareClasses": {"own": {"family": "gpu", "engine": "vLLM"}}}, "engine"),
        ({"hardwareClasses": {"Own Class": {"family": "gpu"}}}, "Own Class"),
        ({"runtime": {"architectures": ["linux/amd64"]}}, "architectures"),
        ({"runtime": {"allowedServiceAccounts": ["*"]}}, "allowedServiceAccounts"),
        ({"resources": {"requests": {"memory": "lots"}}}, "memory"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_refused_by_name(render: Render, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ChartRefused, match=said):
        render(values)
