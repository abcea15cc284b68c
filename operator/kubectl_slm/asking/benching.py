"""The Job that measures a model from beside it, and what it prints → figures. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kubectl_slm import read
from slm_operator.crd.names import API_KEY_FILE, API_VERSION, KIND

NAME_LABEL: Final = "app.kubernetes.io/name"
CONTAINER: Final = "bench"
KEPT: Final = 600
"""Seconds that a Job stays whose command has gone away."""
_ROW: Final = re.compile(r"^\s*(\d+)\s+([\d.]+)\s+([\d.]+) ms\s+([\d.]+) ms\s*$")


def bench_job(
    document: read.Document, pod: Mapping[str, Any], name: str, entry: str | None, asked: Sequence[str]
) -> dict[str, Any]:
    """Runs the bench of the image that serves, on any node, as restricted as the server.

    Parameters
    ----------
    pod
        One that serves: image and identity are its own.
    entry
        Of the key Secret; None where no key is asked for.
    asked
        Arguments of `slm-runtime bench`.
    """
    spec = pod["spec"]
    serve = next(each for each in spec["containers"] if each["name"] == "serve")
    secret = {"name": read.text(document, "keySecret"), "key": entry}
    url = f"http://{read.name_of(document)}.{read.namespace_of(document)}:{read.port(document)}"
    kept = ("securityContext", "imagePullSecrets", "tolerations", "nodeSelector")
    container = {
        "name": CONTAINER,
        "image": serve["image"],
        "imagePullPolicy": serve.get("imagePullPolicy", "IfNotPresent"),
        "command": ["slm-runtime", "bench", "--url", url, *asked],
        "env": [] if entry is None else [{"name": "SLM_API_KEY", "valueFrom": {"secretKeyRef": secret}}],
        "securityContext": serve.get("securityContext") or {},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    metadata = document["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": metadata["name"], "uid": metadata["uid"]}
    labels = {NAME_LABEL: "slm-bench"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    **{each: spec[each] for each in kept if each in spec},
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "containers": [container],
                },
            },
        },
    }


def key_entry(entries: Mapping[str, str]) -> str | None:
    """The entry of a key Secret that holds a key."""
    filled = [name for name, value in sorted(entries.items()) if value]
    return API_KEY_FILE if API_KEY_FILE in filled else next(iter(filled), None)


def measured(log: str) -> list[dict[str, float]]:
    """The table that `slm-runtime bench` prints."""
    names = ("streams", "tokensPerSecond", "firstTokenMs", "gapP99Ms")
    rows = (_ROW.match(line) for line in log.splitlines())
    return [dict(zip(names, map(float, row.groups()), strict=True)) for row in rows if row is not None]
