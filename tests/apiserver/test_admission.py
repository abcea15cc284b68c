"""Who may have what read: the chart's admission policy before a real API server, asked as people with few rights."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from slm_operator.crd.schema import crd
from tests.apiserver.operator import slm, until
from tests.chart.generate import CHART
from tests.cluster import ControlPlane, HarnessError

pytestmark = pytest.mark.apiserver

DEMO, OTHER = "demo", "other"
MODEL = {"name": "m", "source": "https://models.example.com/m.gguf"}
SECRET = {"credentials": {"secretRef": {"name": "token"}}}
CREDENTIALS = {"model": {**MODEL, **SECRET}}
POD_TEMPLATE = {"imagePullSecrets": [{"name": "token"}, {"name": "registry"}]}
NAMED: dict[str, tuple[dict[str, Any], str, str]] = {
    "model.credentials.secretRef.name": (CREDENTIALS, "secrets", "token"),
    "auth.secretRef.name": ({"auth": {"secretRef": {"name": "keys"}}}, "secrets", "keys"),
    "model.caBundle.configMapRef.name": (
        {"model": {**MODEL, "caBundle": {"configMapRef": {"name": "ca"}}}},
        "configmaps",
        "ca",
    ),
    **{
        f"model.verification.{who}.{reference}.name": (
            {
                "model": {
                    **MODEL,
                    "verification": {who: {reference: {"name": f"{who.lower()}-{resource}", "key": "pem"}}},
                }
            },
            resource,
            f"{who.lower()}-{resource}",
        )
        for who in ("publicKey", "certificate")
        for reference, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets"))
    },
    "model.decryption.secretRef.name": (
        {"model": {**MODEL, "decryption": {"secretRef": {"name": "identity", "key": "identity.txt"}}}},
        "secrets",
        "identity",
    ),
    "cache.claimName": ({"cache": {"claimName": "models"}}, "persistentvolumeclaims", "models"),
    "model.variants": (
        {"model": {**MODEL, "variants": [{"hardware": "npu", "source": "pvc://variants/a/m.gguf"}]}},
        "persistentvolumeclaims",
        "variants",
    ),
    "model.source": (
        {"model": {**MODEL, "source": "pvc://weights/m.gguf"}},
        "persistentvolumeclaims",
        "weights",
    ),
}
"""Field of the spec: a spec that uses it, and what it names."""
EDIT = {
    "apiGroups": ["slm-operator.io"],
    "resources": ["slmdeployments", "slmdeployments/status", "slmdeployments/scale"],
    "verbs": ["get", "create", "update", "patch", "delete"],
}


def policy(plane: ControlPlane, *flags: str) -> str:
    place = ("policed", str(CHART), "--namespace", "slm-system", "--kube-version", "1.34.0")
    return plane.helm("template", *place, "--show-only", "templates/admissionpolicy.yaml", *flags)


def send(plane: ControlPlane, *documents: dict[str, Any]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(listed))


def extended() -> dict[str, Any]:
    """The CRD as a later version will have it, with fields of which the policy knows already."""
    later = crd()
    schema = later["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["podTemplate"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    return later


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as started:
        send(
            started,
            crd(),
            *(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                for name in (DEMO, OTHER)
            ),
        )
        started.kubectl("wait", "--for=condition=Established", "crd/slmdeployments.slm-operator.io")
        started.kubectl("apply", "-f", "-", input=policy(started))
        allow(started, "early", EDIT)
        until("the policy is in force", lambda: refusal(started, "early", slm("early", DEMO, **CREDENTIALS)))
        yield started


def allow(plane: ControlPlane, user: str, *rules: dict[str, Any], namespace: str = DEMO) -> None:
    """Give a user rights in a namespace; what he had there is taken from him."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": user, "namespace": namespace}}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    send(
        plane,
        {**head, "kind": "Role", "rules": list(rules)},
        {**head, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
    )


def reading(resource: str, name: str, verb: str = "get") -> dict[str, Any]:
    return {"apiGroups": [""], "resources": [resource], "resourceNames": [name], "verbs": [verb]}


def refusal(plane: ControlPlane, user: str, document: dict[str, Any]) -> str:
    """What the API server would say: nothing is made, so a policy that isn't in force yet finds a creation next time."""
    return denial(plane, user, document, "--dry-run=server")


def denial(plane: ControlPlane, user: str, document: dict[str, Any], *flags: str) -> str:
    """What the API server says to a user's apply; empty where it does as he asks."""
    try:
        apply(plane, user, document, *flags)
    except HarnessError as error:
        return str(error)
    return ""


def apply(plane: ControlPlane, user: str, document: dict[str, Any], *flags: str) -> None:
    who = ("--as", user, "--field-manager", user)
    plane.kubectl(
        *who, "apply", "--server-side", "--force-conflicts", "-f", "-", *flags, input=json.dumps(document)
    )


@pytest.mark.parametrize("field", NAMED)
def test_who_may_not_read_what_he_names_is_refused(plane: ControlPlane, field: str) -> None:
    given, resource, name = NAMED[field]
    user = f"writer-{name}"
    wanted = slm(f"a-{name}", DEMO, **given)
    allow(plane, user, EDIT, reading(resource, "another"), reading(resource, name, "list"))
    said = until("it is refused", lambda: refusal(plane, user, wanted))
    assert "Forbidden" in said or "forbidden" in said
    assert f"spec.{field} names " in said
    assert f" {name}, and {user} may not get it: grant get on {resource} in namespace {DEMO}" in said
    allow(plane, user, EDIT, reading(resource, name))
    until("it is accepted", lambda: not denial(plane, user, wanted))


def test_what_names_nothing_needs_no_right(plane: ControlPlane) -> None:
    allow(plane, "plain", EDIT)
    until("it is accepted", lambda: not denial(plane, "plain", slm("plain", DEMO)))


def test_a_right_elsewhere_doesn_t_count(plane: ControlPlane) -> None:
    allow(plane, "guest", EDIT)
    allow(plane, "guest", reading("secrets", "token"), namespace=OTHER)
    assert "may not get it" in until(
        "refused", lambda: refusal(plane, "guest", slm("guest", DEMO, **CREDENTIALS))
    )


@pytest.fixture
def editor(plane: ControlPlane, request: pytest.FixtureRequest) -> Callable[..., str]:
    """A user who may edit an SLMDeployment that an administrator made, and read nothing that it names."""
    name = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:40].strip("-")
    spec: dict[str, Any] = copy.deepcopy(CREDENTIALS)
    for given, _, _ in NAMED.values():
        for key, value in given.items():
            spec[key] = {**spec.get(key, {}), **copy.deepcopy(value)}
    send(plane, slm(name, DEMO, **spec))
    allow(plane, name, EDIT)

    def patch(change: dict[str, Any], *flags: str) -> str:
        try:
            plane.kubectl(
                "--as",
                name,
                "patch",
                "slm",
                name,
                "-n",
                DEMO,
                "--type=merge",
                "-p",
                json.dumps(change),
                *flags,
            )
        except HarnessError as error:
            return str(error)
        return ""

    until("the rights are known", lambda: not patch({"metadata": {"labels": {"seen": "yes"}}}))
    return patch


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": 3}},
        {"spec": {"runtime": {"parallel": 2}}},
        {"spec": {"model": {"name": "other-name"}}},
        {"spec": {"model": {"credentials": None}}},
        {"spec": {"auth": {"secretRef": None}}},
        {"metadata": {"finalizers": ["example.com/kept"]}},
        {"metadata": {"finalizers": None}},
    ],
    ids=json.dumps,
)
def test_who_leaves_the_names_alone_may_change_the_rest(
    editor: Callable[..., str], change: dict[str, Any]
) -> None:
    assert editor(change) == ""


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {"credentials": {"secretRef": {"name": "other"}}}}, "model.credentials.secretRef.name"),
        ({"auth": {"secretRef": {"name": "token"}}}, "auth.secretRef.name"),
        ({"model": {"caBundle": {"configMapRef": {"name": "other"}}}}, "model.caBundle.configMapRef.name"),
        ({"cache": {"claimName": "other"}}, "cache.claimName"),
        # The Secret stays, and another program reads it, or it goes to somebody else.
        ({"runtime": {"image": "registry.evil/x:1"}}, "model.caBundle.configMapRef.name"),
        ({"model": {"source": "https://evil.example/m.gguf"}}, "model.credentials.secretRef.name"),
        (
            {"model": {"variants": [{"hardware": "cpu", "source": "https://evil.example/m.gguf"}]}},
            "model.credentials.secretRef.name",
        ),
        ({"model": {"caBundle": None}}, "model.credentials.secretRef.name"),
        (
            {"model": {"mirrors": [{"source": "hf://", "mirror": "https://evil.example/"}]}},
            "model.credentials.secretRef.name",
        ),
    ],
    ids=json.dumps,
)
def test_a_new_name_or_another_receiver_asks_anew(
    editor: Callable[..., str], change: dict[str, Any], field: str
) -> None:
    assert f"spec.{field} names " in editor({"spec": change})


def test_a_claim_stays_readable_to_who_changes_the_path_on_it_alone(plane: ControlPlane) -> None:
    name = "same-claim"
    send(plane, slm(name, DEMO, model={**MODEL, "source": "pvc://weights/m.gguf"}))
    allow(plane, name, EDIT)
    other, elsewhere = (
        slm(name, DEMO, model={**MODEL, "source": source})
        for source in ("pvc://weights/other.gguf", "pvc://secrets/m.gguf")
    )
    until("another file is accepted", lambda: not denial(plane, name, other))
    assert "spec.model.source names PersistentVolumeClaim secrets" in denial(plane, name, elsewhere)


def test_variants_name_as_many_claims_as_can_be_asked_for(plane: ControlPlane) -> None:
    user = "many-variants"
    variants = [{"hardware": f"npu-{n}", "source": f"pvc://c{n}/m.gguf"} for n in range(9)]
    allow(plane, user, EDIT, {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]})
    eight, nine = (slm(user, DEMO, model={**MODEL, "variants": variants[:count]}) for count in (8, 9))
    until("eight are accepted", lambda: not denial(plane, user, eight, "--dry-run=server"))
    assert "names more than 8 others" in refusal(plane, user, nine)


def test_status_and_scale_are_nobody_s_names(editor: Callable[..., str], plane: ControlPlane) -> None:
    # Written by the operator, and by autoscalers.
    assert editor({"status": {"observedGeneration": 1}}, "--subresource=status") == ""
    assert editor({"spec": {"replicas": 2}}, "--subresource=scale") == ""


def test_deleting_asks_for_nothing(editor: Callable[..., str], plane: ControlPlane) -> None:
    name = "deleting-asks-for-nothing"
    plane.kubectl("--as", name, "delete", "slm", name, "-n", DEMO)


def test_tools_that_may_everything_may_this(plane: ControlPlane) -> None:
    account = f"system:serviceaccount:{OTHER}:gitops"
    subject = {"kind": "ServiceAccount", "name": "gitops", "namespace": OTHER}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    send(
        plane,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "gitops"},
            "roleRef": role,
            "subjects": [subject],
        },
    )
    until("it is accepted", lambda: not denial(plane, account, slm("gitops", DEMO, **CREDENTIALS)))


def test_the_cluster_s_own_editors_may_this(plane: ControlPlane) -> None:
    """Whoever has the role `edit` in a namespace may read Secrets there."""
    allow(plane, "developer", EDIT)
    head = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "developer-edits", "namespace": DEMO},
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "developer"}
    rules = [
        {
            "apiGroups": [""],
            "resources": ["secrets", "configmaps", "persistentvolumeclaims"],
            "verbs": ["get"],
        }
    ]
    # The controller manager would make `edit` of its parts.
    made = json.loads(plane.kubectl("get", "clusterrole", "edit", "-o", "json"))
    if not made.get("rules"):
        made["rules"] = rules
        plane.kubectl("replace", "-f", "-", input=json.dumps(made))
    send(plane, {**head, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]})
    until("it is accepted", lambda: not denial(plane, "developer", slm("developer", DEMO, **CREDENTIALS)))


def test_a_release_of_some_namespaces_asks_in_these_alone(plane: ControlPlane) -> None:
    whole = policy(plane)
    some = policy(plane, "--set", "fullnameOverride=some", "--set", f"watchNamespaces={{{OTHER}}}")
    plane.kubectl("apply", "-f", "-", input=some)
    plane.kubectl("delete", "-f", "-", input=whole)
    try:
        for namespace in (DEMO, OTHER):
            allow(plane, "between", EDIT, namespace=namespace)
        until(
            "it is accepted where nobody asks",
            lambda: not denial(plane, "between", slm("between", DEMO, **CREDENTIALS)),
        )
        until(
            "it is refused where the release is",
            lambda: "may not get it" in refusal(plane, "between", slm("between", OTHER, **CREDENTIALS)),
        )
    finally:
        plane.kubectl("apply", "-f", "-", input=whole)
        plane.kubectl("delete", "-f", "-", input=some)
        allow(plane, "between", EDIT)
        until("the policy is in force", lambda: refusal(plane, "between", slm("again", DEMO, **CREDENTIALS)))


def test_fields_that_the_crd_gets_later_are_asked_for_too(plane: ControlPlane) -> None:
    send(plane, extended())
    try:
        images = slm("images", DEMO, podTemplate=POD_TEMPLATE)
        acting = slm("acting", DEMO, podTemplate={"serviceAccountName": "cloud"})
        many = slm("many", DEMO, podTemplate={"imagePullSecrets": [{"name": f"s{n}"} for n in range(9)]})
        token = reading("secrets", "token")
        allow(plane, "later", EDIT, token, reading("serviceaccounts", "cloud"))
        until(
            "the second pull secret is refused",
            lambda: (
                "spec.podTemplate.imagePullSecrets names Secret registry" in denial(plane, "later", images)
            ),
        )
        assert "later may not impersonate it" in denial(plane, "later", acting)
        allow(
            plane,
            "later",
            EDIT,
            token,
            reading("secrets", "registry"),
            reading("serviceaccounts", "cloud", "impersonate"),
        )
        until(
            "they are accepted", lambda: not denial(plane, "later", images) + denial(plane, "later", acting)
        )
        allow(plane, "later", EDIT, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})
        until("more are never asked for", lambda: "names more than 8 others" in refusal(plane, "later", many))
        allow(plane, "later", EDIT)
        images["spec"]["podTemplate"]["imagePullSecrets"].reverse()
        until("what was there may stay", lambda: not denial(plane, "later", images))
    finally:
        plane.kubectl("delete", "slm", "--all", "-n", DEMO)
        send(plane, crd())
