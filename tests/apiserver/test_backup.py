"""docs/backup.md, run as it stands: saved from one cluster, restored in another, the same key."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver.api import Api
from tests.apiserver.kubelet import beside
from tests.apiserver.operator import CRD, ROOT, Operator, slm
from tests.apiserver.test_writes import wait_ready
from tests.cluster import ControlPlane, tools

pytestmark = pytest.mark.apiserver

SAVE, RESTORE = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "backup.md").read_text(), re.DOTALL)


@pytest.fixture
def restored() -> Iterator[ControlPlane]:
    """Another cluster, with its garbage collector and a node."""
    with ControlPlane(controllers=True) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(CRD))
        plane.established("slmdeployments.slm-operator.io")
        with beside(plane.kubeconfig):
            yield plane


def shell(plane: ControlPlane, script: str, namespace: str, folder: Path) -> None:
    path = f"{tools.kubernetes.folder()}{os.pathsep}{os.environ['PATH']}"
    environ = {"PATH": path, "KUBECONFIG": str(plane.kubeconfig), "NAMESPACE": namespace, "HOME": str(folder)}
    subprocess.run(["/bin/sh", "-eu", "-c", script], cwd=folder, env=environ, check=True)


def test_what_is_saved_is_restored_with_its_key(
    plane: ControlPlane, operator: Operator, api: Api, restored: ControlPlane, tmp_path: Path
) -> None:
    namespace = api.namespace
    api.apply(slm("a", namespace))
    api.apply(slm("open", namespace, auth={"mode": "None"}))
    wait_ready(plane, namespace, "a")
    before = api.get("Secret", "a-api-key")
    assert before is not None
    shell(plane, SAVE, namespace, tmp_path)

    again = Api(restored, namespace)
    restored.kubectl("create", "namespace", namespace)
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own", "namespace": namespace}}
    theirs = again.apply({**own, "data": {"a": "b"}})
    shell(restored, RESTORE, namespace, tmp_path)
    secret = again.get("Secret", "a-api-key")
    assert secret is not None
    with Operator(restored, tmp_path / "restored"):
        wait_ready(restored, namespace, "a")
        wait_ready(restored, namespace, "open")
    after = again.get("Secret", "a-api-key")
    assert after is not None
    assert after["data"]["api-key"] == before["data"]["api-key"]
    assert after["metadata"]["uid"] == secret["metadata"]["uid"], (
        "it was kept, neither collected nor made anew"
    )
    assert again.get("ConfigMap", "own") == theirs
    uid = (again.get("SLMDeployment", "a") or {})["metadata"]["uid"]
    assert uid not in json.dumps(before)
    mounted = json.loads(restored.kubectl("get", "deployment", "a", "-n", namespace, "-o", "json"))
    assert f"owner-{uid}" in json.dumps(mounted["spec"]["template"])
