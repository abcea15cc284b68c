"""The chart of this checkout, and the values that install it on this machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.host import architecture, host_index, proxies

CHART = Path(__file__).resolve().parents[2] / "charts" / "slm-operator"


def values(loaded: Mapping[str, str]) -> dict[str, Any]:
    """For the images *loaded* (name in the checkout to name in the cluster), with this machine's index, proxies and CAs."""
    index = host_index()
    return {
        "image": _image(loaded["slm-operator"]),
        "runtime": {"image": _image(loaded["slm-runtime"]), "architectures": [architecture()]},
        "fetch": {
            "env": {**proxies(), **index.env},
            "caBundle": index.ca_bundle.read_text() if index.ca_bundle else "",
        },
    }


def write(values: Mapping[str, Any], path: Path) -> Path:
    """Write a values file, as JSON: Python's YAML leaves unquoted what Helm takes for a number (a tag ``12e4``)."""
    path.write_text(json.dumps(values))
    return path


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}
