"""The admission policy: where it is made, for which namespaces, and under whose name."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from slm_operator.crd.schema import crd
from tests.chart.generate import CHART
from tests.chart.rendering import NAMESPACE, NAMESPACED, Helm, Render, Rendered

KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def on(helm: Helm, version: str, *flags: str | Path) -> Rendered:
    return Rendered(
        helm("template", "slm-operator", CHART, "--namespace", NAMESPACE, "--kube-version", version, *flags)
    )


@pytest.mark.parametrize("version", ["1.30.0", "1.30.4-gke.100", "1.36.1"])
def test_it_is_there_where_the_cluster_can(helm: Helm, version: str) -> None:
    rendered = on(helm, version)
    for kind in KINDS:
        assert rendered.one(kind)["apiVersion"] == "admissionregistration.k8s.io/v1"
    binding = rendered.one(KINDS[1])["spec"]
    assert binding == {"policyName": "slm-operator", "validationActions": ["Deny"]}


def test_it_isn_t_where_the_cluster_can_t_or_the_site_won_t(helm: Helm, render: Render) -> None:
    for rendered in (on(helm, "1.29.9"), render({"admissionPolicy": {"enabled": False}})):
        assert not {each["kind"] for each in rendered.objects} & set(KINDS)


def test_an_upgrade_that_reuses_the_values_of_an_earlier_chart_has_it_too(render: Render) -> None:
    assert render({"admissionPolicy": None}).kind(KINDS[0])


def test_a_cluster_that_says_it_can_is_believed(helm: Helm) -> None:
    served = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
    assert on(helm, "1.29.9", "--api-versions", served).kind(KINDS[0])


def test_it_fails_closed_and_leaves_status_and_scale_alone(rendered: Rendered) -> None:
    spec = rendered.one(KINDS[0])["spec"]
    assert spec["failurePolicy"] == "Fail"
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert (rule["resources"], rule["operations"]) == (["slmdeployments"], ["CREATE", "UPDATE"])


def test_a_release_asks_in_its_own_namespaces(render: Render) -> None:
    selector = render(NAMESPACED).one(KINDS[0])["spec"]["matchConstraints"]["namespaceSelector"]
    (expression,) = selector["matchExpressions"]
    assert (expression["key"], expression["values"]) == ("kubernetes.io/metadata.name", ["team-a", "team-b"])
    assert "namespaceSelector" not in render().one(KINDS[0])["spec"]["matchConstraints"]


def test_two_releases_have_two_policies(render: Render) -> None:
    second = render({**NAMESPACED, "fullnameOverride": "second"})
    assert [second.one(kind)["metadata"]["name"] for kind in KINDS] == ["second", "second"]
    assert second.one(KINDS[1])["spec"]["policyName"] == "second"


def notes(helm: Helm, folder: Path, version: str, *flags: str) -> str:
    """What Helm prints after an installation: it renders that for no version but the cluster's, so a template quotes it."""
    chart = shutil.copytree(CHART, folder / version)
    shutil.move(chart / "templates" / "NOTES.txt", chart / "files" / "NOTES.txt")
    quoted = """{{ dict "kind" "Notes" "text" (tpl (.Files.Get "files/NOTES.txt") .) | toJson }}"""
    (chart / "templates" / "notes.yaml").write_text(quoted)
    rendered = Rendered(helm("template", "slm-operator", chart, "--kube-version", version, *flags))
    return str(rendered.kind("Notes")[0]["text"])


def test_the_notes_say_what_an_old_cluster_doesn_t_protect(helm: Helm, tmp_path: Path) -> None:
    said = notes(helm, tmp_path, "1.29.9")
    assert "1.29.9) is older than Kubernetes 1.30" in said
    assert "only to people who may read Secrets there" in said
    assert "older than" not in notes(helm, tmp_path, "1.30.0")
    assert "older than" not in notes(helm, tmp_path, "1.29.8", "--set", "admissionPolicy.enabled=false")


def references(schema: dict[str, Any], path: str = "") -> set[str]:
    """Fields of the spec that name an object of the namespace."""
    found = set()
    for name, inner in schema.get("properties", {}).items():
        if name.endswith("Ref") and "name" in inner.get("properties", {}):
            found.add(f"{path}{name}.name")
        found |= references(inner, f"{path}{name}.")
    return found


def test_every_reference_of_the_crd_is_asked_for(render: Render) -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    said = " ".join(
        each.get("messageExpression", "") for each in render().one(KINDS[0])["spec"]["validations"]
    )
    # A Service that gateways ask: nothing of it comes to who names it.
    asked = references(schema) - {"endpoint.gateway.endpointPickerRef.name"}
    for field in asked | {"cache.claimName", "model.source", "model.variants"}:
        assert f"'spec.{field} names " in said
