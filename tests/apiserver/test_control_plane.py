"""The harness's own API server: it starts, several side by side, and does what the tests count on."""

import json
from typing import Any

import pytest

from tests.cluster import ControlPlane, HarnessError, service_monitor_crd
from tests.support import audit

pytestmark = pytest.mark.apiserver

RULE = {"rule": "self.low <= self.high", "message": "low must not be above high: swap them"}
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
            "required": ["low", "high"],
            "x-kubernetes-validations": [RULE],
        }
    },
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "bounds.harness.slm-operator.io"},
    "spec": {
        "group": "harness.slm-operator.io",
        "scope": "Namespaced",
        "names": {"kind": "Bound", "plural": "bounds", "singular": "bound"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}},
        ],
    },
}


def bound(low: int, high: int) -> str:
    kind = {"apiVersion": "harness.slm-operator.io/v1", "kind": "Bound"}
    return json.dumps({**kind, "metadata": {"name": "b"}, "spec": {"low": low, "high": high}})


def audited(plane: ControlPlane) -> list[dict[str, Any]]:
    """Every logged request for an object, oldest first."""
    return [event for event in audit.events(plane.audit_log) if "objectRef" in event]


def test_rules_of_a_crd_are_enforced_with_their_message(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(CRD))
    control_plane.established("bounds.harness.slm-operator.io")
    control_plane.kubectl("apply", "-f", "-", input=bound(1, 2))
    with pytest.raises(HarnessError, match="low must not be above high: swap them"):
        control_plane.kubectl("apply", "-f", "-", input=bound(3, 2))


def test_a_finished_write_is_in_the_audit_log(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "audited")
    written = [event for event in audited(control_plane) if event["objectRef"].get("name") == "audited"]
    assert [event["stage"] for event in written] == ["ResponseComplete"]
    assert "requestObject" not in written[0]


def test_garbage_is_collected(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "owner")
    uid = control_plane.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": "owned", "ownerReferences": [owner]}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    control_plane.kubectl("create", "-f", "-", input=json.dumps(child))
    control_plane.kubectl("delete", "configmap", "owner")
    control_plane.kubectl("wait", "--for=delete", "configmap/owned", "--timeout=60s")


def test_the_service_monitor_crd_is_a_real_one(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    control_plane.established("servicemonitors.monitoring.coreos.com")


def test_two_live_side_by_side_and_know_nothing_of_each_other(control_plane: ControlPlane) -> None:
    with ControlPlane() as other:
        other.kubectl("create", "namespace", "only-there")
        assert "only-there" not in control_plane.kubectl("get", "namespaces", "-o", "name")
    assert not other.folder.exists()
