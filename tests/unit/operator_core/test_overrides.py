"""`spec.podTemplate`: what the user adds to pods, and what stays the operator's."""

import copy
from typing import Any

import pytest

from slm_operator.crd.names import selector
from slm_operator.crd.resource import parse_resource
from slm_operator.pod.overrides import clashes, overridden
from tests.unit.operator_core.world import SETTINGS, World, spec

TEMPLATE: dict[str, Any] = {
    "metadata": {
        "labels": {**selector("smollm2"), "slm-operator.io/hardware": "cpu"},
        "annotations": {"kubectl.kubernetes.io/default-container": "serve"},
    },
    "spec": {
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": "site"}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
        "containers": [{"name": "serve"}],
    },
}
ALLOWING = SETTINGS.model_copy(update={"allowed_service_accounts": ("models",)})


def applied(
    pod_template: dict[str, Any] | None = None, template: dict[str, Any] = TEMPLATE, **changes: Any
) -> dict[str, Any]:
    """The template with these overrides; the rendered one stays as it was."""
    before = copy.deepcopy(template)
    wanted = spec(**changes) if pod_template is None else spec(podTemplate=pod_template, **changes)
    result = overridden(template, parse_resource(World(wanted).resource), ALLOWING)
    assert template == before
    return result


def named(pod_template: dict[str, Any]) -> tuple[str, ...]:
    return clashes(parse_resource(World(spec(podTemplate=pod_template)).resource), ALLOWING)


def test_without_overrides_only_the_spread_is_added() -> None:
    result = applied()
    (spread,) = result["spec"].pop("topologySpreadConstraints")
    assert result == TEMPLATE
    assert spread == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector("smollm2")},
        "matchLabelKeys": ["pod-template-hash"],
    }


def test_a_template_does_not_follow_the_number_of_replicas() -> None:
    assert applied(replicas=1) == applied(replicas=5)


def test_labels_and_annotations_stand_beside_the_operators_own() -> None:
    result = applied({"labels": {"team": "a"}, "annotations": {"sidecar.istio.io/inject": "false"}})
    assert result["metadata"] == {
        "labels": {**TEMPLATE["metadata"]["labels"], "team": "a"},
        "annotations": {**TEMPLATE["metadata"]["annotations"], "sidecar.istio.io/inject": "false"},
    }


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("labels", "app.kubernetes.io/instance"),
        ("labels", "app.kubernetes.io/part-of"),
        ("labels", "slm-operator.io/hardware"),
        ("labels", "slm-operator.io/new"),
        ("annotations", "slm-operator.io/intent"),
        ("annotations", "kubectl.kubernetes.io/default-container"),
    ],
)
def test_what_the_operator_owns_is_left_out_and_named(field: str, key: str) -> None:
    assert applied({field: {key: "theirs"}}) == applied()
    assert named({field: {key: "theirs", "team": "a"}}) == (
        f"spec.podTemplate.{field}[{key}] is the operator's own",
    )


def test_a_service_account_needs_the_configurations_consent() -> None:
    assert applied({"serviceAccountName": "models"})["spec"]["serviceAccountName"] == "models"
    assert named({"serviceAccountName": "models"}) == ()
    assert applied({"serviceAccountName": "cluster-admin"}) == applied()
    (sentence,) = named({"serviceAccountName": "cluster-admin"})
    assert "cluster-admin" in sentence
    assert "runtime.allowedServiceAccounts" in sentence


def test_a_service_account_brings_no_token() -> None:
    assert applied({"serviceAccountName": "models"})["spec"]["automountServiceAccountToken"] is False


def test_identity_is_replaced_and_the_rest_of_the_security_context_stays() -> None:
    context = applied({"securityContext": {"runAsUser": 1000680000, "runAsGroup": 0}})["spec"][
        "securityContext"
    ]
    assert context == {"runAsNonRoot": True, "runAsUser": 1000680000, "runAsGroup": 0, "fsGroup": 65532}


def test_pull_secrets_are_added_once_each() -> None:
    result = applied({"imagePullSecrets": [{"name": "own"}, {"name": "site"}]})
    assert result["spec"]["imagePullSecrets"] == [{"name": "site"}, {"name": "own"}]


def test_plain_fields_reach_the_pod() -> None:
    given = {"priorityClassName": "batch", "runtimeClassName": "gvisor", "schedulerName": "volcano"}
    assert given.items() <= applied(given)["spec"].items()


def test_an_affinity_reaches_the_pod_as_it_was_written() -> None:
    """An empty selector means every pod, a missing one none: both stay what they are."""
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {}},
                },
                {"weight": 2, "podAffinityTerm": {"topologyKey": "zone"}},
            ]
        },
    }
    assert applied({"affinity": affinity})["spec"]["affinity"] == affinity


def test_a_spread_of_the_users_own_takes_the_place_of_ours() -> None:
    zones = {"maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    (spread,) = applied({"topologySpreadConstraints": [zones]})["spec"]["topologySpreadConstraints"]
    assert spread == {
        **zones,
        "labelSelector": {"matchLabels": selector("smollm2")},
        "matchLabelKeys": ["pod-template-hash"],
    }
    chosen = {**zones, "labelSelector": {"matchLabels": {"team": "a"}}}
    assert applied({"topologySpreadConstraints": [chosen]})["spec"]["topologySpreadConstraints"] == [chosen]


def test_pods_of_jobs_get_all_but_the_spread() -> None:
    job = {
        "metadata": {"labels": {**selector("smollm2"), "app.kubernetes.io/component": "pull"}},
        "spec": {"containers": []},
    }
    zones = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    result = applied({"annotations": {"a": "b"}, "topologySpreadConstraints": [zones]}, job)
    assert result == {"metadata": {**job["metadata"], "annotations": {"a": "b"}}, "spec": job["spec"]}
