"""A new SLMDeployment before any operator has looked at it: its default status, and what people do with it meanwhile."""

import json
from typing import Any

import pytest

from slm_operator.crd.schema import UNSEEN
from tests.apiserver.operator import slm
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver


def fresh(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace)))
    return get(plane, namespace)


def get(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plane.kubectl("-n", namespace, "get", "slm", "a", "-o", "json"))
    return found


def write_status(plane: ControlPlane, namespace: str, status: dict[str, Any]) -> None:
    document = {key: value for key, value in slm("a", namespace).items() if key != "spec"} | {
        "status": status
    }
    plane.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--subresource=status"),
        *("--field-manager=slm-operator", "-f", "-"),
        input=json.dumps(document),
    )


def test_nobody_takes_it_for_done(plane, namespace) -> None:
    """A status whose generation isn't the object's is InProgress to kstatus; no status at all is Current."""
    made = fresh(plane, namespace)
    assert made["status"] == UNSEEN
    assert made["metadata"]["generation"] == 1
    plane.kubectl(
        "-n", namespace, "wait", "--for=jsonpath={.status.observedGeneration}=-1", "--timeout=10s", "slm/a"
    )


def test_a_status_that_is_applied_takes_its_place(plane, namespace) -> None:
    fresh(plane, namespace)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    write_status(plane, namespace, {"observedGeneration": 1, "conditions": [ready]})
    assert get(plane, namespace)["status"] == {"observedGeneration": 1, "conditions": [ready]}
    plane.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=10s", "slm/a")
    write_status(plane, namespace, {"observedGeneration": 2})
    assert get(plane, namespace)["status"] == {"observedGeneration": 2}


def test_what_people_do_leaves_the_status_alone(plane, namespace) -> None:
    before = fresh(plane, namespace)
    plane.kubectl("diff", "-f", "-", input=json.dumps(slm("a", namespace)))
    plane.kubectl("apply", "-f", "-", input=json.dumps(slm("a", namespace)))
    plane.kubectl("replace", "-f", "-", input=json.dumps({**slm("a", namespace), "status": {}}))
    after = get(plane, namespace)
    assert after["metadata"]["generation"] == 1
    assert after["status"] == UNSEEN
    plane.kubectl("replace", "--force", "-f", "-", input=json.dumps(slm("a", namespace)))
    remade = get(plane, namespace)
    assert remade["metadata"]["uid"] != before["metadata"]["uid"]
    assert remade["status"] == UNSEEN


def test_the_table_shows_what_is_there(plane, namespace) -> None:
    fresh(plane, namespace)
    write_status(
        plane,
        namespace,
        {
            "observedGeneration": 1,
            "address": "203.0.113.7",
            "placement": {"selected": "gpu-nvidia"},
            "acceleration": {"device": "NVIDIA L4"},
            "download": {"state": "Fetching", "percent": 45, "url": "https://models.example.com/m.gguf"},
        },
    )
    narrow = plane.kubectl("-n", namespace, "get", "slm").splitlines()
    assert narrow[0].split() == ["NAME", "MODEL", "READY", "HARDWARE", "STATUS", "AGE"]
    wide = plane.kubectl("-n", namespace, "get", "slm", "-o", "wide").splitlines()
    row = {name: wide[1][wide[0].index(name) :].split("   ")[0].strip() for name in wide[0].split()}
    assert row["HARDWARE"] == "gpu-nvidia"
    assert row["DEVICE"] == "NVIDIA L4"
    assert row["DOWNLOAD"] == "45"
    assert row["ADDRESS"] == "203.0.113.7"
