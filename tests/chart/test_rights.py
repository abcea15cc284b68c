"""The operator's own process, with the rights that the chart grants and no others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.generate import CHART
from tests.chart.rendering import NAMESPACE
from tests.cluster import ControlPlane, HarnessError, chart, neighbour_crds, tools
from tests.support import audit
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.skipif(sys.platform != "linux", reason="the API server and etcd are built for Linux only"),
]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:slm-operator"
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}
MONITORED = "{.status.conditions[?(@.type=='MonitoringReady')].reason}"
RARELY_NEEDED = [
    *((verb, "controllerrevisions.apps") for verb in ("get", "create", "patch", "delete")),
    *((verb, "poddisruptionbudgets.policy") for verb in ("get", "create", "patch", "delete")),
    *((verb, "horizontalpodautoscalers.autoscaling") for verb in ("get", "create", "patch", "delete")),
    *((verb, "events") for verb in ("list", "create")),
]
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "fake", "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
}
NODE_STATUS = {
    "status": {
        "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "fake"}],
    }
}


PROMETHEUS = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "Prometheus",
    "metadata": {"name": "k8s", "namespace": "monitoring"},
    "spec": {
        "serviceMonitorSelector": {"matchLabels": {"release": "stack"}},
        "serviceMonitorNamespaceSelector": {},
    },
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as started:
        for namespace in (NAMESPACE, "team-a", "team-b", "monitoring"):
            started.kubectl("create", "namespace", namespace)
        started.kubectl("create", "--filename", "-", input=json.dumps(NODE))
        started.kubectl("taint", "node", "fake", "node.kubernetes.io/not-ready-", "--overwrite")
        patch = ("--subresource=status", "--type=merge", "--patch", json.dumps(NODE_STATUS))
        started.kubectl("patch", "node", "fake", *patch)
        kinds = ("servicemonitors", "prometheuses", "prometheusrules")
        for manifest in (*map(tools.monitoring_crd, kinds), *neighbour_crds()):
            started.kubectl("apply", "--server-side", "--filename", str(manifest))
        started.established("prometheuses.monitoring.coreos.com")
        started.kubectl("create", "--filename", "-", input=json.dumps(PROMETHEUS))
        yield started


@contextmanager
def operator(plane: ControlPlane, folder: Path) -> Iterator[Path]:
    """Run it as its pod would, with the token of its account and the chart's settings; yields its log."""
    config = json.loads(plane.kubectl("get", "configmap", "slm-operator", "-n", NAMESPACE, "-o", "json"))
    settings = folder / "config.yaml"
    settings.write_text(config["data"]["config.yaml"])
    kubeconfig = yaml.safe_load(plane.kubeconfig.read_text())
    token = plane.kubectl("create", "token", "slm-operator", "--namespace", NAMESPACE).strip()
    kubeconfig["users"][0]["user"] = {"token": token}
    own = folder / "operator.kubeconfig"
    own.write_text(json.dumps(kubeconfig))
    environment = {
        "KUBECONFIG": str(own),
        "SLM_OPERATOR_CONFIG": str(settings),
        "SLM_OPERATOR_PORT": str(free_port()),
        "SLM_LEASE_NAME": "slm-operator",
        "POD_NAMESPACE": NAMESPACE,
        "POD_NAME": folder.name,
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "slm_operator"],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield log
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(20)


def eventually(what: str, check: Callable[[], Any], why: Callable[[], str], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{why()}"
        time.sleep(0.2)


def exists(plane: ControlPlane, what: str, namespace: str) -> bool:
    try:
        return bool(plane.kubectl("get", what, "--namespace", namespace, "--output", "name"))
    except HarnessError:
        return False


def refusals(plane: ControlPlane) -> list[str]:
    """What the API server forbade the operator, from its audit log."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in audit.events(plane.audit_log)
        if event["user"]["username"] == ACCOUNT and event["responseStatus"]["code"] == 403
    ]


def model(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    source = {"source": f"https://models.corp.example/{name}.gguf", "sha256": "e" * 64}
    return {
        "apiVersion": "slm-operator.io/v1alpha1",
        "kind": "SLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": source, "resources": RESOURCES, **spec},
    }


@pytest.mark.parametrize(
    ("home", "namespaces"), [("team-a", []), ("team-b", ["team-b"])], ids=["cluster", "namespaced"]
)
def test_the_granted_rights_are_enough_for_every_child(
    plane: ControlPlane, tmp_path: Path, home: str, namespaces: list[str]
) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    offered = {
        "autoscaling": {"enabled": True, "prometheusAddress": "http://prometheus:9090"},
        "gateway": {"enabled": True},
    }
    values = chart.write(
        {
            "watchNamespaces": namespaces,
            "fetch": {"caBundle": pem},
            "monitoring": {
                "checkSelection": True,
                "rules": {"enabled": True},
                "dashboards": {"enabled": True},
            },
            **offered,
        },
        tmp_path / "values.yaml",
    )
    plane.helm("install", "slm-operator", str(CHART), "--namespace", NAMESPACE, "--values", str(values))
    monitored = {"serviceMonitor": {"enabled": True}}
    pool = {
        "parentRefs": [{"name": "public"}],
        "backend": "InferencePool",
        "endpointPickerRef": {"name": "picker"},
    }
    models = [
        model("served", home, observability=monitored, autoscaling={"max": 2}, endpoint={"gateway": pool}),
        model("cached", home, cache={"mode": "PVC", "size": "1Gi"}),
    ]
    try:
        with operator(plane, tmp_path) as log:

            def why() -> str:
                status = plane.kubectl("get", "slm", "--namespace", home, "--output", "yaml")
                return f"{log.read_text()[-4000:]}\n{status}"

            plane.established("slmdeployments.slm-operator.io")
            plane.kubectl(
                "apply",
                "--filename",
                "-",
                input=json.dumps({"apiVersion": "v1", "kind": "List", "items": models}),
            )
            for child in (
                "deployment/served",
                "service/served",
                "secret/served-api-key",
                "configmap/served-ca",
                "servicemonitor/served",
                "scaledobject/served",
                "httproute/served",
                "inferencepool/served",
                "persistentvolumeclaim/cached-models",
                "jobs",
            ):
                eventually(f"{child} is made", lambda child=child: exists(plane, child, home), why)
            seen = ("get", "slm", "served", "-n", home, "-o", "jsonpath={.status.observedGeneration}")
            eventually("its status is written", lambda: plane.kubectl(*seen) == "1", why)
            told = ("get", "slm", "served", "-n", home, "-o", f"jsonpath={MONITORED}")
            eventually("nobody scrapes it", lambda: plane.kubectl(*told) == "NotSelected", why)
            labelled = {"spec": {"observability": {"serviceMonitor": {"labels": {"release": "stack"}}}}}
            labels = ("--type=merge", "--patch", json.dumps(labelled))
            plane.kubectl("patch", "slm", "served", "--namespace", home, *labels)
            eventually("it is scraped", lambda: plane.kubectl(*told) == "ServiceMonitorMade", why)
            change = ("--type=merge", "--patch", '{"spec": {"observability": null}}')
            plane.kubectl("patch", "slm", "served", "--namespace", home, *change)
            for verb, resources in RARELY_NEEDED:
                plane.kubectl("auth", "can-i", verb, resources, "--as", ACCOUNT, "--namespace", home)
            eventually("a child is deleted", lambda: not exists(plane, "servicemonitor/served", home), why)
        assert refusals(plane) == []
    finally:
        plane.helm("uninstall", "slm-operator", "--namespace", NAMESPACE)
