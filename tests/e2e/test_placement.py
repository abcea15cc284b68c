"""Placement is data: a class that a site adds is chosen like a shipped one, and what was rejected is in status."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.site import SMOLLM2, SMOLLM2_SHA256, Site

pytestmark = pytest.mark.e2e

RESOURCE = "acme.example/npu"
CLASS = {
    "family": "npu",
    "order": 1,
    "nodeSelector": {"acme.example/npu-present": "true"},
    "resource": {"name": RESOURCE, "count": 1},
}
SPEC = {
    "model": {"name": "smollm2-135m", "source": SMOLLM2, "sha256": SMOLLM2_SHA256},
    "hardware": {"preference": ["npu", "cpu"]},
    "runtime": {"contextLength": 1024},
}


def set_capacity(site: Site, count: int | None) -> None:
    """Give the node *count* of the resource, as its device plugin would, or take it away."""
    pointer = "/status/capacity/acme.example~1npu"
    change = (
        {"op": "add", "path": pointer, "value": str(count)}
        if count is not None
        else {"op": "remove", "path": pointer}
    )
    site.kubectl(
        *("patch", "node", site.cluster.node_name, "--subresource=status", "--type=json"),
        *("-p", json.dumps([change])),
    )


@contextmanager
def acme_npu(site: Site) -> Iterator[None]:
    node = site.cluster.node_name
    site.kubectl("label", "node", node, "acme.example/npu-present=true", "--overwrite")
    set_capacity(site, 1)
    allocatable = "jsonpath={.status.allocatable.acme\\.example/npu}"
    site.eventually(
        "the node offers the resource",
        lambda: site.kubectl("get", "node", node, "-o", allocatable) == "1",
    )
    try:
        yield
    finally:
        site.kubectl("label", "node", node, "acme.example/npu-present-")
        # kubelet keeps what a device plugin once offered at zero; that is "none to be had".
        set_capacity(site, 0)
        site.eventually(
            "the node offers none", lambda: site.kubectl("get", "node", node, "-o", allocatable) in {"", "0"}
        )


@pytest.fixture
def added_class(site: Site) -> Iterator[None]:
    site.install(hardwareClasses={"npu-acme": CLASS})
    yield
    site.install()


@pytest.mark.usefixtures("added_class")
def test_a_class_added_by_values_alone_is_chosen_first_and_without_its_resource_cpu_is(site: Site) -> None:
    with site.namespace("placement") as ns:
        with acme_npu(site):
            ns.apply("smollm2", SPEC)
            status = ns.wait_ready("smollm2")
            assert status["placement"]["selected"] == "npu-acme"
            (pod,) = ns.pods("smollm2")
            serve = pod["spec"]["containers"][0]
            assert serve["resources"]["limits"][RESOURCE] == "1"
            assert pod["spec"]["nodeSelector"].items() >= CLASS["nodeSelector"].items()
            print(f"\nwith the resource: {status['placement']['selected']}: {status['placement']['reason']}")
            site.kubectl("delete", "slm", "smollm2", "-n", ns.name, "--wait=true")
            site.eventually("its pods are gone", lambda: not ns.pods("smollm2"))
        ns.apply("smollm2", SPEC)
        status = ns.wait_ready("smollm2")
        assert status["placement"]["selected"] == "cpu"
        rejected = {each["hardware"]: each["reason"] for each in status["placement"]["rejected"]}
        assert rejected["npu-acme"]
        (pod,) = ns.pods("smollm2")
        assert RESOURCE not in pod["spec"]["containers"][0]["resources"]["limits"]
        print(f"without: {status['placement']['selected']}; npu-acme: {rejected['npu-acme']}")
