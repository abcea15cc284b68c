"""The operator may do what it needs, where it needs it, and nothing more."""

from tests.chart.rendering import EVERYTHING, NAMESPACE, NAMESPACED, Render, Rendered

OPERATOR = {"kind": "ServiceAccount", "name": "slm-operator", "namespace": NAMESPACE}
CHILDREN = {"get", "list", "watch", "create", "patch", "delete"}


def rights(rendered: Rendered, kind: str, name: str) -> dict[str, set[str]]:
    """`group/resource` to verbs."""
    return {
        f"{group}/{resource}": set(rule["verbs"])
        for rule in rendered.one(kind, name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_no_rule_has_a_wildcard(rendered: Rendered) -> None:
    for role, rule in rendered.rules():
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not [word for word in words if "*" in word], role
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), role


def test_secrets_can_only_be_made(rendered: Rendered) -> None:
    verbs = [rule["verbs"] for _, rule in rendered.rules() if "secrets" in rule["resources"]]
    assert verbs
    assert all(each == ["create"] for each in verbs)


def test_rights_on_the_cluster(render: Render) -> None:
    assert rights(render(), "ClusterRole", "slm-operator") == {
        "slm-operator.io/slmdeployments": {"get", "list", "watch"},
        "slm-operator.io/slmdeployments/status": {"get", "patch"},
        "apps/deployments": CHILDREN,
        "apps/controllerrevisions": CHILDREN,
        "/services": CHILDREN,
        "/persistentvolumeclaims": CHILDREN,
        "batch/jobs": CHILDREN,
        "policy/poddisruptionbudgets": CHILDREN,
        "monitoring.coreos.com/servicemonitors": CHILDREN,
        "/secrets": {"create"},
        "/events": {"list", "create"},
        "/pods": {"get", "list", "watch"},
    }


def test_config_maps_are_touched_only_to_hand_on_the_site_s_cas(render: Render) -> None:
    values = {"fetch": EVERYTHING["fetch"]}
    assert rights(render(values), "ClusterRole", "slm-operator") == {
        **rights(render(), "ClusterRole", "slm-operator"),
        "/configmaps": CHILDREN,
    }


def test_daemon_sets_are_made_only_where_nodes_have_a_directory_for_models(render: Render) -> None:
    values = {"nodeCache": {"path": "/var/lib/slm-models"}}
    assert rights(render(values), "ClusterRole", "slm-operator") == {
        **rights(render(), "ClusterRole", "slm-operator"),
        "apps/daemonsets": CHILDREN,
    }


def test_who_scrapes_is_seen_only_where_it_is_asked_for(render: Render) -> None:
    checks = {"monitoring": {"checkSelection": True}}
    for mode in ({}, NAMESPACED):
        assert "slm-operator-monitoring" not in str(render(mode).objects)
        assert rights(render({**mode, **checks}), "ClusterRole", "slm-operator-monitoring") == {
            "monitoring.coreos.com/prometheuses": {"list"},
            "monitoring.coreos.com/prometheusagents": {"list"},
            "/namespaces": {"list"},
        }


def test_autoscalers_and_routes_are_touched_only_where_they_are_offered(render: Render) -> None:
    offered = render({"autoscaling": {"enabled": True}, "gateway": {"enabled": True}})
    assert rights(offered, "ClusterRole", "slm-operator") == {
        **rights(render(), "ClusterRole", "slm-operator"),
        "autoscaling/horizontalpodautoscalers": CHILDREN,
        "keda.sh/scaledobjects": CHILDREN,
        "gateway.networking.k8s.io/httproutes": CHILDREN,
        "inference.networking.k8s.io/inferencepools": CHILDREN,
    }


def test_namespaced_mode_grants_nothing_but_nodes_on_the_cluster(render: Render) -> None:
    namespaced, cluster = render(NAMESPACED), render()
    bound = {
        binding["roleRef"]["name"]
        for binding in namespaced.kind("ClusterRoleBinding")
        if OPERATOR in binding["subjects"]
    }
    assert bound == {"slm-operator-nodes"}
    assert rights(namespaced, "ClusterRole", "slm-operator-nodes") == {"/nodes": {"get", "list", "watch"}}
    roles = {
        role["metadata"]["namespace"]: role["rules"]
        for role in namespaced.kind("Role")
        if role["metadata"]["name"] == "slm-operator"
    }
    assert set(roles) == {"team-a", "team-b"}
    assert roles["team-a"] == roles["team-b"] == cluster.one("ClusterRole", "slm-operator")["rules"]


def test_every_operator_role_is_bound_to_the_operator(rendered: Rendered) -> None:
    bound = {
        (binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace"))
        for binding in [*rendered.kind("RoleBinding"), *rendered.kind("ClusterRoleBinding")]
        if binding["subjects"] == [OPERATOR]
    }
    roles = {
        (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace"))
        for role in [*rendered.kind("Role"), *rendered.kind("ClusterRole")]
        if not any("aggregate-to" in label for label in role["metadata"]["labels"])
    }
    assert bound == roles


def test_one_lease_only_and_only_at_home(rendered: Rendered) -> None:
    role = rendered.one("Role", "slm-operator-lease")
    assert role["metadata"]["namespace"] == NAMESPACE
    by_name = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert [rule["resourceNames"] for rule in by_name] == [["slm-operator"]]
    assert [rule["verbs"] for rule in role["rules"] if "resourceNames" not in rule] == [["create"]]
    env = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "SLM_LEASE_NAME", "value": "slm-operator"} in env


def test_people_who_may_edit_a_namespace_may_edit_its_models(render: Render) -> None:
    edit = render().one("ClusterRole", "slm-operator-edit")
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert "slmdeployments" in edit["rules"][0]["resources"]
    roles = {role["metadata"]["name"] for role in render({"rbac": {"aggregate": False}}).kind("ClusterRole")}
    assert roles == {"slm-operator", "slm-operator-nodes"}


def test_roles_may_be_left_to_others(render: Render) -> None:
    rendered = render({"rbac": {"create": False, "aggregate": False}})
    assert not list(rendered.rules())
