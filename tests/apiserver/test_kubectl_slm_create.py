"""`kubectl slm create` and `convert`: what they make of people's files, a real API server takes, rules included."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apiserver.api import Api
from tests.cluster import ControlPlane, tools
from tests.unit.kubectl_slm.test_convert import DEPLOYMENT, ENVIRONMENT, PERFORMANCE, SERVER
from tests.unit.kubectl_slm.test_modelfile import ASSISTANT, WITH_TEMPLATE

pytestmark = pytest.mark.apiserver

Apply = Callable[..., str]
ALL_INSTRUCTIONS = (
    ASSISTANT
    + '''
FROM hf.co/org/repo-GGUF:Q8_0
PARAMETER stop "<|im_end|>"
PARAMETER repeat_last_n -1
TEMPLATE """{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}{{ end }}"""
ADAPTER hf://org/lora/l.gguf
MESSAGE user Hi
MESSAGE assistant Yo
LICENSE """MIT
License"""
REQUIRES 0.14.0
'''
)


@pytest.fixture
def apply(plane: ControlPlane, namespace: str, tmp_path: Path) -> Apply:
    def run(verb: str, *words: str, **files: str) -> str:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        path = os.pathsep.join([str(tools.kubernetes.path("kubectl").parent), os.environ["PATH"]])
        done = subprocess.run(
            [sys.executable, "-m", "kubectl_slm", "-n", namespace, verb, *words, "--apply"],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "KUBECONFIG": str(plane.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_peoples_files_become_deployments_that_the_api_server_takes(api: Api, apply: Apply) -> None:
    told = apply("create", "assistant", Modelfile=ASSISTANT)
    assert told.startswith("assistant is applied")
    apply("create", "with-template", "-f", "b", b=WITH_TEMPLATE)
    apply("create", "all", "-f", "c", c=ALL_INSTRUCTIONS)
    apply("convert", "production", "performance", production=DEPLOYMENT, performance=PERFORMANCE)
    apply("convert", "environment", "--model", "ollama://qwen2.5:3b", environment=ENVIRONMENT)
    apply("convert", "server", "--name", "server", server=SERVER)
    found = {each["metadata"]["name"]: each["spec"] for each in api.list("SLMDeployment")}
    assert {name: spec["model"]["source"] for name, spec in found.items()} == {
        "assistant": "ollama://qwen2.5:3b",
        "with-template": "ollama://phi4:mini",
        "all": "hf://org/repo-GGUF",
        "phi-4-mini": "catalog://phi-4-mini",
        "qwen2-5-3b": "ollama://qwen2.5:3b",
        "server": "catalog://phi-4-mini",
    }
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    assert found["all"]["model"]["prompt"]["messages"] == messages
