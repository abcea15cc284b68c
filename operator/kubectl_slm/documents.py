"""Documents: files in YAML or JSON, and the operator's configuration in the cluster."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError, Exit
from slm_operator.crd.names import COMPONENT_LABEL, MANAGED_BY, PART_OF_LABEL

CONFIG_FILE: Final = "config.yaml"
OPERATORS: Final = f"{PART_OF_LABEL}={MANAGED_BY},{COMPONENT_LABEL}=operator"
"""Selects what the chart has made for the operator itself."""


def read_yaml(path: str) -> Any:
    """A YAML or JSON file; `-`: standard input.

    Raises
    ------
    CommandError
    """
    return parse_yaml(read_text(path), path)


def read_text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it isn't text"
        raise CommandError(f"{path}: {words}", "name a file that can be read", Exit.USAGE) from None


def parse_yaml(text: str, where: str) -> Any:
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise CommandError(
            f"{where}: {' '.join(str(error).split())}", "correct it: it is neither YAML nor JSON", Exit.USAGE
        ) from None
    if not isinstance(found, dict):
        raise CommandError(f"{where}: expected a map", "correct it: it has no fields", Exit.USAGE)
    return found


def operators_config(cluster: Cluster) -> tuple[dict[str, Any], str]:
    """What the operator is configured with, as it stands in its ConfigMap, and where that is.

    Raises
    ------
    CommandError
    """
    found = cluster.get("configmaps", everywhere=True, selector=OPERATORS)["items"]
    mine = next((each for each in found if CONFIG_FILE in (each.get("data") or {})), None)
    if mine is None:
        raise CommandError(
            "no ConfigMap of the operator's is in this cluster",
            "install the operator (docs/install.md); `plan` also takes its settings by --values FILE",
            Exit.NOT_FOUND,
        )
    where = f"ConfigMap {mine['metadata']['namespace']}/{mine['metadata']['name']}"
    return parse_yaml(mine["data"][CONFIG_FILE], where), where
