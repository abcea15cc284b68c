"""What a rendering of the chart is, and the values that stand for its modes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

Document = dict[str, Any]
NAMESPACE = "slm-system"


class ChartRefused(Exception):
    """Helm would not render the chart; the message is what it said."""


class Rendered:
    """The objects of one rendering, found by kind and name."""

    def __init__(self, text: str) -> None:
        self.objects: list[Document] = [document for document in yaml.safe_load_all(text) if document]

    def kind(self, kind: str) -> list[Document]:
        return [document for document in self.objects if document["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Document:
        found = [document for document in self.kind(kind) if name in {None, document["metadata"]["name"]}]
        assert len(found) == 1, f"{len(found)} objects of kind {kind}"
        return found[0]

    def settings_text(self) -> str:
        """What the operator reads as its configuration file."""
        (found,) = [each["data"] for each in self.kind("ConfigMap") if "config.yaml" in each["data"]]
        return str(found["config.yaml"])

    def rules(self) -> Iterator[tuple[str, Document]]:
        """Every RBAC rule with the name of its role."""
        for role in [*self.kind("Role"), *self.kind("ClusterRole")]:
            for rule in role["rules"]:
                yield f"{role['kind']}/{role['metadata']['name']}", rule


class Render(Protocol):
    """Renders the chart with values given as a map, and with Helm's own flags."""

    def __call__(self, values: Mapping[str, Any] | None = None, /, *flags: str | Path) -> Rendered: ...


class Helm(Protocol):
    """Runs Helm and returns what it printed; raises ChartRefused with what it said."""

    def __call__(self, *arguments: str | Path) -> str: ...


EVERYTHING: Mapping[str, Any] = {
    "image": {"digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "runtime": {
        "image": {"repository": "registry.corp/slm-runtime", "tag": "1"},
        "imagePullSecrets": [{"name": "registry"}],
        "allowedImagePrefixes": ["registry.corp/"],
        "architectures": ["amd64", "arm64"],
        "allowedServiceAccounts": ["models"],
    },
    "fetch": {
        "env": {"PIP_INDEX_URL": "https://index.corp/simple", "PIP_TIMEOUT": 30, "PIP_NO_INPUT": True},
        "caBundle": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "allowedSources": ["https://models.corp/", "pypi://"],
        "mirrors": [{"source": "hf://", "mirror": "https://hub.corp/"}],
        "hosts": ["hub.corp", "models.corp:8443"],
        "bytesPerSecond": 10000000,
    },
    "catalog": {
        "phi-4-mini": {"source": "oci://registry.corp/phi:1", "sha256": "a" * 64, "sizeBytes": 2000000000},
        "mistral-7b": None,
        "own": {
            "source": "hf://corp/own/own.gguf",
            "license": "corp",
            "gated": True,
            "variants": [{"hardware": "gpu", "source": "hf://corp/own/own-Q8_0.gguf"}],
        },
    },
    "nodeCache": {"path": "/var/lib/slm-models"},
    "autoscaling": {"enabled": True, "prometheusAddress": "http://prometheus:9090", "authModes": "bearer"},
    "gateway": {"enabled": True},
    "watchNamespaces": [],
    "clusterDomain": "corp.local",
    "logLevel": "debug",
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "monitoring": {
        "labels": {"release": "stack"},
        "checkSelection": True,
        "rules": {"enabled": True, "firstTokenSeconds": 2.5},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
    },
    "networkPolicy": {"enabled": True, "from": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "platform"},
    "priorityClassName": "system-cluster-critical",
    "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
}
OPENSHIFT = ("--api-versions", "security.openshift.io/v1")
"""Flags that make Helm take the cluster for one."""
NAMESPACED: Mapping[str, Any] = {"watchNamespaces": ["team-a", "team-b"]}
MODES: Mapping[str, Mapping[str, Any]] = {"default": {}, "namespaced": NAMESPACED, "everything": EVERYTHING}
