"""What is kept of an object: who owns its fields, as one text for all objects of a shape."""

import json
from typing import Any

import pytest

from slm_operator.cluster.kept import kept_object
from slm_operator.cluster.resources import (
    CLAIM,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    NODE,
    POD,
    SERVICE,
    SERVICE_MONITOR,
    SLM_DEPLOYMENT,
)
from slm_operator.store import Change, Store
from tests.unit.operator_edge.objects import KEY, child, slm

CHILDREN = (
    CLAIM,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    SERVICE,
    SERVICE_MONITOR,
)


def managed(uid: str) -> list[dict[str, Any]]:
    common = {"apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1"}
    ours = {
        "f:spec": {"f:template": {}},
        "f:metadata": {"f:ownerReferences": {f'k:{{"uid":"{uid}"}}': {}, 'k:{"uid":"other"}': {}}},
    }
    return [
        {"manager": "slm-operator", "operation": "Update", "fieldsV1": ours, **common},
        {
            "manager": "kubectl",
            "operation": "Update",
            "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
            **common,
        },
        {
            "manager": "kube-controller-manager",
            "operation": "Update",
            "subresource": "status",
            "fieldsV1": {"f:status": {"f:replicas": {}}},
            **common,
        },
    ]


def deployment(uid: str, version: int = 1) -> dict[str, Any]:
    document = child("Deployment", version, owner=uid, spec={"replicas": 1})
    document["metadata"]["managedFields"] = managed(uid)
    return document


def test_who_owns_what_is_kept_without_times_and_without_the_status():
    kept = kept_object(DEPLOYMENT, deployment("uid-a"))["metadata"]["managedFields"]
    assert kept == [
        {
            "manager": "slm-operator",
            "operation": "Update",
            "fieldsV1": '{"f:metadata":{"f:ownerReferences":{"k:{\\"uid\\":\\"other\\"}":{},"k:{}":{}}},'
            '"f:spec":{"f:template":{}}}',
        },
        {
            "manager": "kubectl",
            "operation": "Update",
            "subresource": "scale",
            "fieldsV1": '{"f:spec":{"f:replicas":{}}}',
        },
    ]
    assert json.loads(kept[0]["fieldsV1"])["f:metadata"]["f:ownerReferences"]["k:{}"] == {}


@pytest.mark.parametrize("resource", CHILDREN, ids=lambda resource: resource.kind)
def test_what_is_kept_is_kept_whole_again(resource):
    document = {**deployment("uid-a"), "kind": resource.kind, "apiVersion": resource.api_version}
    document |= {"data": {"a": "b"}, "revision": 3, "status": {"x": 1}}
    kept = kept_object(resource, document)
    assert kept["metadata"]["managedFields"]
    assert kept_object(resource, kept) == kept


@pytest.mark.parametrize("resource", [NODE, POD, SLM_DEPLOYMENT], ids=lambda resource: resource.kind)
def test_of_what_we_dont_make_nobodys_fields_are_kept(resource):
    assert "managedFields" not in kept_object(resource, deployment("uid-a"))["metadata"]


def test_a_revision_keeps_its_data_and_its_number():
    document = {**deployment("uid-a"), "kind": "ControllerRevision", "data": {"class": "cpu"}, "revision": 3}
    kept = kept_object(CONTROLLER_REVISION, document)
    assert (kept["data"], kept["revision"]) == ({"class": "cpu"}, 3)
    assert "spec" not in kept


def test_a_field_that_changes_hands_is_a_change_that_can_wait():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(DEPLOYMENT, deployment("uid-a", 5))
    taken = deployment("uid-a", 6)
    taken["metadata"]["managedFields"][0]["manager"] = "argocd"
    assert store.observe(DEPLOYMENT, taken) == [Change(KEY, urgent=False)]
    reported = deployment("uid-a", 7)
    reported["metadata"]["managedFields"] = taken["metadata"]["managedFields"][:2]
    assert store.observe(DEPLOYMENT, reported) == []
