"""`kubectl slm` against a real API server: what it says of deployments in each state, and of what it can't do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_slm.errors import Exit
from tests.apiserver.api import Api
from tests.apiserver.operator import ROOT, SETTINGS, Operator, slm, until
from tests.cluster import ControlPlane, tools

pytestmark = pytest.mark.apiserver

Slm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kubectl_slm(plane: ControlPlane, namespace: str) -> Slm:
    """The program as people start it."""

    def run(
        *words: str, kubeconfig: Path = plane.kubeconfig, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        paths = [str(tools.kubernetes.path("kubectl").parent), os.environ["PATH"]]
        environ = os.environ | {"PATH": os.pathsep.join(paths), "KUBECONFIG": str(kubeconfig)}
        return subprocess.run(
            [sys.executable, "-m", "kubectl_slm", "-n", namespace, *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **more,
        )

    return run


@pytest.fixture
def deployed(api: Api, start: Callable[..., Operator]) -> None:
    """One that serves, and some that don't, each for its reason."""
    start()
    for name in ("oom", "bad-checksum", "never-ready"):
        model = {"name": "m", "source": f"https://models.example.com/{name}.gguf", "sha256": "b" * 64}
        api.apply(slm(name, api.namespace, model=model))
    api.apply(slm("serves", api.namespace))
    wanted = {"oom": "OutOfMemory", "bad-checksum": "ChecksumMismatch", "serves": "Serving"}
    wanted["never-ready"] = "Starting"
    until("each has its reason", lambda: {name: api.reason(name) for name in wanted} == wanted)


@pytest.mark.usefixtures("deployed")
def test_what_is_deployed_is_listed_and_explained(
    api: Api, plane: ControlPlane, kubectl_slm: Slm, tmp_path: Path
) -> None:
    listed = kubectl_slm("list")
    assert listed.returncode == Exit.OK, listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert "Serving" in lines["serves"]
    assert "1/1" in lines["serves"]
    assert "OutOfMemory" in lines["oom"]
    assert "\x1b" not in listed.stdout, "colours where nobody sees them"
    everywhere = json.loads(kubectl_slm("list", "-A", "-o", "json").stdout)
    assert {"oom", "serves"} <= {each["name"] for each in everywhere if each["namespace"] == api.namespace}

    shown = kubectl_slm("show", "serves")
    assert "https://models.example.com/m.gguf" in shown.stdout
    assert yaml.safe_load(kubectl_slm("show", "serves", "-o", "yaml").stdout)["kind"] == "SLMDeployment"
    assert [line.split()[0] for line in kubectl_slm("ps").stdout.splitlines()] == ["NAME", "serves"]

    why = kubectl_slm("why", "oom")
    assert why.returncode == Exit.NO
    assert why.stdout.startswith("OutOfMemory: ")
    remedy = (api.get("SLMDeployment", "oom") or {})["status"]["lastFailure"]["remedy"]
    assert f"→ {remedy}" in why.stdout
    broken = json.loads(kubectl_slm("why", "bad-checksum", "-o", "json").stdout)
    assert (broken["state"], broken["reason"]) == ("broken", "ChecksumMismatch")
    assert broken["remedy"].startswith("correct spec.model.sha256")
    assert json.loads(kubectl_slm("why", "never-ready", "-o", "json").stdout)["state"] == "waiting"
    assert kubectl_slm("why", "serves").returncode == Exit.OK

    assert kubectl_slm("version").returncode == Exit.OK, "the cluster has this checkout's CRD"

    missing = kubectl_slm("why", "serve")
    assert missing.returncode == Exit.NOT_FOUND
    assert "serves" in missing.stderr
    assert "Traceback" not in missing.stderr

    nobody = plane.authority.kubeconfig(tmp_path / "nobody.kubeconfig", plane.url, "nobody")
    refused = kubectl_slm("list", kubeconfig=nobody)
    assert refused.returncode == Exit.FORBIDDEN
    assert refused.stderr.count("\n") == 2, "a sentence and a remedy"

    made = kubectl_slm("run", "https://models.example.com/other.gguf", "--name", "serves", "--no-wait")
    assert made.returncode == Exit.NO, "another model under the same name"
    assert "--name" in made.stderr
    again = kubectl_slm("run", "https://models.example.com/m.gguf", "--name", "serves", "--no-chat")
    assert again.returncode == Exit.OK, again.stderr
    stalled = kubectl_slm("run", "https://models.example.com/bad-checksum.gguf", "--name", "bad-checksum")
    assert stalled.returncode == Exit.NO
    assert "ChecksumMismatch" in stalled.stderr

    assert kubectl_slm("rm", "oom", input="").returncode == Exit.USAGE, "nobody was asked"
    assert kubectl_slm("rm", "--yes", "oom").returncode == Exit.OK
    assert api.get("SLMDeployment", "oom") is None


def test_a_plan_is_made_of_what_the_cluster_has(
    api: Api, plane: ControlPlane, kubectl_slm: Slm, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(slm("planned", api.namespace)))
    without = kubectl_slm("plan", "-f", str(file))
    assert without.returncode == Exit.NOT_FOUND
    assert "--values" in without.stderr
    chart = {"app.kubernetes.io/part-of": "slm-operator", "app.kubernetes.io/component": "operator"}
    metadata = {"name": "slm-operator", "namespace": api.namespace, "labels": chart}
    settings = {"config.yaml": yaml.safe_dump({**SETTINGS, "catalog": CATALOG})}
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": settings})

    planned = kubectl_slm("plan", "-f", "-", "-o", "json", input=file.read_text())
    assert planned.returncode == Exit.OK, planned.stderr
    (plan,) = json.loads(planned.stdout)
    assert (plan["fits"], plan["class"], plan["hosts"]) == (True, "cpu", ["models.example.com"])
    too_much = slm("planned", api.namespace, hardware={"preference": ["gpu"]})
    refused = kubectl_slm("plan", "-f", "-", input=yaml.safe_dump(too_much))
    assert refused.returncode == Exit.NO
    assert "gpu" in refused.stdout
    unread = slm("planned", api.namespace, resources=None)
    assert kubectl_slm("plan", "-f", "-", input=yaml.safe_dump(unread)).returncode == Exit.UNKNOWN
    assert api.get("SLMDeployment", "planned") is None, "planning made something"

    small = json.loads(kubectl_slm("models", "--size", "small", "--type", "instruct", "-o", "json").stdout)
    assert [each["name"] for each in small] == ["small-it"]


CATALOG = {
    "small-it": {"source": "hf://org/small-it-GGUF/a.gguf", "license": "MIT", "parameters": "1.5B"},
    "small-base": {"source": "hf://org/small-base-GGUF/a.gguf", "license": "MIT", "parameters": "350M"},
    "large-it": {"source": "hf://org/large-it-GGUF/a.gguf", "license": "MIT", "parameters": "7B"},
}


def test_without_a_cluster_or_kubectl_there_is_a_sentence(kubectl_slm: Slm, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.kubeconfig"
    cluster = {"name": "gone", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "gone", "context": {"cluster": "gone", "user": "gone"}}
    config = {"clusters": [cluster], "contexts": [context], "current-context": "gone"}
    nowhere.write_text(yaml.safe_dump({**config, "users": [{"name": "gone", "user": {"token": "t"}}]}))
    gone = kubectl_slm("list", kubeconfig=nowhere)
    assert gone.returncode == Exit.UNREACHABLE
    assert "kubectl cluster-info" in gone.stderr
    unknown = kubectl_slm("--context", "typo", "list", kubeconfig=nowhere)
    assert unknown.returncode == Exit.USAGE
    assert "kubectl config get-contexts" in unknown.stderr
    bare = subprocess.run(
        [sys.executable, "-m", "kubectl_slm", "list"],
        env={"PATH": "", "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT / "runtime")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert bare.returncode == Exit.UNREACHABLE
    assert "kubectl" in bare.stderr
    assert "Traceback" not in bare.stderr
