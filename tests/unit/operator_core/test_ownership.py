"""What managedFields say, as API servers write them: of POSTs with defaults, of applies, of other people's edits."""

import json
from typing import Any

from slm_operator.ownership import Loss, consolidated, differences, leftover

INTENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "a",
        "namespace": "demo",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"app.kubernetes.io/name": "slm-runtime"},
        "annotations": {"slm-operator.io/intent": "1234"},
        "ownerReferences": [{"apiVersion": "slm-operator.io/v1alpha1", "name": "a", "uid": "owner"}],
    },
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app.kubernetes.io/name": "slm-runtime"}},
        "template": {
            "spec": {
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "containers": [
                    {
                        "name": "serve",
                        "image": "runtime:1",
                        "command": ["slm-runtime", "serve"],
                        "env": [{"name": "SLM_CONFIG", "value": "{}"}, {"name": "EMPTY", "value": ""}],
                        "ports": [{"name": "api", "containerPort": 8080}],
                        "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "500m"}},
                        "securityContext": {"capabilities": {"drop": ["ALL"]}, "privileged": False},
                    }
                ],
            }
        },
    },
}
"""The protocol of the port and everything else that the API server fills in is left out."""

POSTED: dict[str, Any] = {
    "f:metadata": {
        "f:annotations": {".": {}, "f:slm-operator.io/intent": {}},
        "f:labels": {".": {}, "f:app.kubernetes.io/name": {}},
        "f:ownerReferences": {".": {}, 'k:{"uid":"owner"}': {}},
    },
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"serve"}': {
                        ".": {},
                        "f:command": {},
                        "f:env": {
                            ".": {},
                            'k:{"name":"EMPTY"}': {".": {}, "f:name": {}},
                            'k:{"name":"SLM_CONFIG"}': {".": {}, "f:name": {}, "f:value": {}},
                        },
                        "f:image": {},
                        "f:name": {},
                        "f:ports": {
                            ".": {},
                            'k:{"containerPort":8080,"protocol":"TCP"}': {
                                ".": {},
                                "f:containerPort": {},
                                "f:name": {},
                                "f:protocol": {},
                            },
                        },
                        "f:resources": {
                            ".": {},
                            "f:limits": {".": {}, "f:memory": {}},
                            "f:requests": {".": {}, "f:cpu": {}},
                        },
                        "f:securityContext": {
                            ".": {},
                            "f:capabilities": {".": {}, "f:drop": {}},
                            "f:privileged": {},
                        },
                        "f:terminationMessagePath": {},
                    }
                },
                "f:dnsPolicy": {},
                "f:securityContext": {},
                "f:tolerations": {},
            }
        },
    },
}


def entry(
    fields: Any, manager: str = "slm-operator", operation: str = "Update", **more: str
) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields, **more}


def copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def serve(document: Any) -> Any:
    return document["spec"]["template"]["spec"]["containers"][0]


def posted_serve(fields: Any) -> Any:
    return fields["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"serve"}']


def live(*entries: dict[str, Any]) -> dict[str, Any]:
    """The object as it is read: what the API server fills in is there, what is empty is not."""
    document = copy(INTENT)
    document["metadata"]["managedFields"] = list(entries)
    document["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst", "securityContext": {}}
    container = serve(document)
    container["ports"][0]["protocol"] = "TCP"
    container["terminationMessagePath"] = "/dev/termination-log"
    del container["env"][1]["value"]
    return document


def test_after_a_post_every_field_is_ours_and_nothing_is_left_over():
    document = live(entry(POSTED))
    assert differences(INTENT, document).lost == ()
    assert differences(INTENT, document).rewritten == ()
    assert not leftover(INTENT, document)


def test_fields_may_come_as_text():
    document = live(entry(json.dumps(POSTED)), entry('{"f:spec":{"f:replicas":{}}}', "hpa"))
    assert differences(INTENT, document).lost == ()
    assert differences(INTENT, document).rewritten == ()


def test_who_changes_a_value_owns_it():
    fields = copy(POSTED)
    del posted_serve(fields)["f:image"]
    taken = {
        "f:spec": {
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"serve"}': {"f:image": {}}}}},
        }
    }
    document = live(entry(fields), entry(taken, "kubectl-set"))
    assert differences(INTENT, document).lost == (
        Loss("spec.template.spec.containers[serve].image", "kubectl-set"),
    )


def test_scaling_takes_the_replicas():
    fields = copy(POSTED)
    del fields["f:spec"]["f:replicas"]
    scaled = entry({"f:spec": {"f:replicas": {}}}, "kubectl", subresource="scale")
    assert differences(INTENT, live(entry(fields), scaled)).lost == (Loss("spec.replicas", "kubectl"),)


def test_what_was_taken_away_is_nobodys():
    fields = copy(POSTED)
    del fields["f:metadata"]["f:labels"]["f:app.kubernetes.io/name"]
    del posted_serve(fields)["f:env"]['k:{"name":"SLM_CONFIG"}']
    assert differences(INTENT, live(entry(fields))).lost == (
        Loss("metadata.labels[app.kubernetes.io/name]", None),
        Loss("spec.template.spec.containers[serve].env[SLM_CONFIG]", None),
    )


def test_a_list_that_is_one_value_is_lost_as_one():
    fields = copy(POSTED)
    del fields["f:spec"]["f:template"]["f:spec"]["f:tolerations"]
    taken = entry({"f:spec": {"f:template": {"f:spec": {"f:tolerations": {}}}}}, "kubectl-edit")
    assert differences(INTENT, live(entry(fields), taken)).lost == (
        Loss("spec.template.spec.tolerations", "kubectl-edit"),
    )


def test_each_field_of_a_lost_element_names_its_own_manager():
    fields = copy(POSTED)
    del posted_serve(fields)["f:resources"]
    theirs = {"f:resources": {".": {}, "f:limits": {".": {}, "f:memory": {}}}}
    taken = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"serve"}': theirs}}}}}
    assert differences(INTENT, live(entry(fields), entry(taken, "vpa"))).lost == (
        Loss("spec.template.spec.containers[serve].resources.limits.memory", "vpa"),
        Loss("spec.template.spec.containers[serve].resources.requests", None),
    )


def test_fields_of_either_operation_count_and_other_peoples_beside_ours_do_no_harm():
    fields = copy(POSTED)
    del fields["f:spec"]["f:replicas"]
    applied = entry({"f:spec": {"f:replicas": {}}}, operation="Apply")
    theirs = entry({"f:metadata": {"f:annotations": {"f:team": {}}}, "f:spec": {"f:replicas": {}}}, "argocd")
    assert differences(INTENT, live(applied, entry(fields), theirs)).lost == ()


def test_of_a_map_all_of_whose_keys_are_taken_only_the_name_is_ours():
    fields = copy(POSTED)
    fields["f:metadata"]["f:labels"] = {}
    taken = entry({"f:metadata": {"f:labels": {"f:app.kubernetes.io/name": {}}}}, "kubectl-label")
    assert differences(INTENT, live(entry(fields), taken)).lost == (
        Loss("metadata.labels[app.kubernetes.io/name]", "kubectl-label"),
    )
    document = live(entry(fields))
    document["metadata"]["labels"] = {"team": "a"}
    assert differences(INTENT, document).lost == (Loss("metadata.labels", None),)
    assert differences(INTENT, document).rewritten == ()


def test_our_status_is_no_part_of_the_object_itself():
    ours = entry({"f:spec": {"f:replicas": {}}}, subresource="status")
    assert Loss("spec.replicas", "slm-operator") in differences(INTENT, live(ours)).lost
    assert differences(INTENT, live(ours)).rewritten == ()


def test_where_no_account_is_kept_nothing_is_lost():
    assert differences(INTENT, INTENT).lost == ()
    assert differences(INTENT, live()).lost == ()
    assert differences(INTENT, live()).rewritten == ()
    assert not leftover(INTENT, live())


def test_a_set_has_its_values():
    intent = {"metadata": {"finalizers": ["a/b", "c/d"]}}
    fields = {"f:metadata": {"f:finalizers": {".": {}, 'v:"a/b"': {}}}}
    document = {"metadata": {"finalizers": ["a/b"], "managedFields": [entry(fields)]}}
    assert differences(intent, document).lost == (Loss("metadata.finalizers[c/d]", None),)
    assert leftover({"metadata": {"finalizers": ["c/d"]}}, document)


def test_a_selector_without_keys_is_any_element():
    """The one owner of a child stands so in what is kept of it."""
    fields = copy(POSTED)
    fields["f:metadata"]["f:ownerReferences"] = {"k:{}": {}}
    document = live(entry(fields))
    document["metadata"]["ownerReferences"].insert(0, {"name": "other", "uid": "other"})
    assert differences(INTENT, document).lost == ()
    assert differences(INTENT, document).rewritten == ()


def test_a_webhook_rewrites_what_stays_ours():
    document = live(entry(POSTED))
    container = serve(document)
    container["image"] = "mirror.example/runtime:1"
    container["ports"][0]["name"] = "renamed"
    document["spec"]["template"]["spec"]["tolerations"].append({"key": "zone", "operator": "Exists"})
    del container["env"][0]
    assert differences(INTENT, document).rewritten == (
        "spec.template.spec.tolerations",
        "spec.template.spec.containers[serve].image",
        "spec.template.spec.containers[serve].env[SLM_CONFIG].name",
        "spec.template.spec.containers[serve].env[SLM_CONFIG].value",
        "spec.template.spec.containers[serve].ports[api].name",
    )
    assert differences(INTENT, document).lost == ()


def test_what_somebody_else_changed_is_not_a_webhooks_work():
    fields = copy(POSTED)
    del posted_serve(fields)["f:image"]
    document = live(entry(fields))
    serve(document)["image"] = "other"
    assert differences(INTENT, document).rewritten == ()


def test_spellings_of_a_value_are_the_same_value():
    document = live(entry(POSTED))
    container = serve(document)
    container["resources"] = {"limits": {"memory": "1024Mi"}, "requests": {"cpu": "0.5"}}
    del container["securityContext"]["privileged"]
    assert differences(INTENT, document).rewritten == ()
    container["env"][0]["value"] = "{ }"
    assert differences(INTENT, document).rewritten == (
        "spec.template.spec.containers[serve].env[SLM_CONFIG].value",
    )


def test_what_an_intent_drops_is_left_over_from_a_post_and_goes_with_an_apply():
    def without(change: Any) -> dict[str, Any]:
        intent: dict[str, Any] = copy(INTENT)
        change(intent)
        return intent

    dropped = [
        without(lambda intent: intent["spec"]["template"]["spec"].pop("tolerations")),
        without(lambda intent: serve(intent)["env"].pop(0)),
        without(lambda intent: serve(intent)["resources"].pop("requests")),
        without(lambda intent: intent["metadata"].pop("labels")),
    ]
    for intent in dropped:
        assert leftover(intent, live(entry(POSTED)))
        assert not leftover(intent, live(entry(POSTED, operation="Apply")))
        assert not leftover(intent, live(entry(POSTED, "kubectl-create")))


def test_a_field_that_is_not_at_its_default_is_left_over():
    document = live(entry(POSTED))
    document["spec"]["template"]["spec"]["dnsPolicy"] = "None"
    assert leftover(INTENT, document)


def test_an_empty_value_that_says_something_is_left_over():
    """A volume that was an emptyDir and becomes a claim would be both."""

    def volumes(**source: Any) -> dict[str, Any]:
        return {"metadata": {}, "spec": {"volumes": [{"name": "models", **source}]}}

    posted = {"f:spec": {"f:volumes": {".": {}, 'k:{"name":"models"}': {"f:name": {}, "f:emptyDir": {}}}}}
    document = volumes(emptyDir={})
    document["metadata"]["managedFields"] = [entry(posted)]
    assert leftover(volumes(persistentVolumeClaim={"claimName": "a"}), document)
    assert not leftover(volumes(emptyDir={}), document)


def test_one_entry_is_made_of_all_that_are_ours():
    theirs = entry({"f:spec": {"f:replicas": {}}}, "kubectl")
    status = entry({"f:status": {"f:replicas": {}}}, subresource="status")
    applied = entry(
        {"f:spec": {"f:paused": {}, "f:template": {"f:spec": {"f:hostNetwork": {}}}}}, operation="Apply"
    )
    merged = consolidated([applied, theirs, entry(POSTED), status])
    assert merged is not None
    assert merged[1:] == [theirs, status]
    fields = copy(POSTED)
    fields["f:spec"]["f:paused"] = {}
    fields["f:spec"]["f:template"]["f:spec"]["f:hostNetwork"] = {}
    assert merged[0] == entry(fields, operation="Apply")
    assert consolidated(merged) is None
    assert consolidated([theirs, status]) is None
    assert consolidated([]) is None
