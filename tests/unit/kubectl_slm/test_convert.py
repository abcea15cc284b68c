"""Foundry Local's configuration, servers' environments and commands, as people have them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_slm.__main__ import main
from kubectl_slm.others import commands, environment
from kubectl_slm.others.converted import Draft, NotConverted
from kubectl_slm.others.foundry import configure
from kubectl_slm.others.foundry.names import catalog_name
from slm_operator.crd.schemes import SCHEMES
from tests.unit.kubectl_slm.held import valid
from tests.unit.kubectl_slm.test_modelfile import ASSISTANT

ROOT = Path(__file__).parents[3]
DEPLOYMENT = """{"deployment": {"model": "microsoft/phi-4-mini",
                "hardware": {"preferred": "npu", "fallback": ["gpu", "cpu"]},
                "optimization": {"quantization": "dynamic", "batch_size": 4, "max_context": 4096},
                "api": {"port": 8080, "openai_compatible": true}}}
"""
PERFORMANCE = """{"performance": {"batch_processing": true, "parallel_requests": 8,
                 "memory_optimization": {"enable_kv_cache": true, "max_cache_size": "4GB"},
                 "hardware_scheduling": {"enable_dynamic_batching": true, "max_batch_size": 16}}}
"""
ENVIRONMENT = """OLLAMA_HOST=0.0.0.0:11434
OLLAMA_NUM_GPU=1
OLLAMA_NUM_THREAD=8
OLLAMA_GPU_LAYERS=35
CUDA_VISIBLE_DEVICES=0
OLLAMA_NUM_PARALLEL=4
OLLAMA_MAX_LOADED_MODELS=2
OLLAMA_FLASH_ATTENTION=1
OLLAMA_MAX_VRAM=8G
OLLAMA_KEEP_ALIVE=10m
"""
SERVER = """apiVersion: apps/v1
kind: Deployment
metadata: {name: foundry}
spec:
  replicas: 3
  template:
    spec:
      containers:
      - name: foundry
        image: foundry
        command: ["sh", "-c", "foundry service start"]
        ports: [{containerPort: 8080}]
        env:
        - {name: FOUNDRY_MODEL, value: microsoft/phi-4-mini}
        - {name: FOUNDRY_HARDWARE, value: "npu,gpu,cpu"}
        resources:
          requests: {memory: 4Gi, cpu: 2000m}
          limits: {memory: 8Gi, cpu: 4000m}
"""
COMMANDS = {
    "ollama pull qwen2.5:3b": "kubectl slm pull qwen2.5:3b --size 5Gi",
    "ollama pull phi4:mini": "kubectl slm pull phi4:mini --size 5Gi",
    "ollama list": "kubectl slm list",
    "ollama ps": "kubectl slm ps",
    "ollama rm phi4:mini": "kubectl slm rm NAME",
    "ollama show phi4:mini": "kubectl slm show NAME",
    "ollama run phi4:mini": "kubectl slm run phi4:mini",
    'ollama run phi4:mini "QUESTION"': 'kubectl slm run phi4:mini "QUESTION"',
    "ollama create enterprise-assistant -f ./Modelfile": (
        "kubectl slm create enterprise-assistant -f ./Modelfile --apply"
    ),
    "foundry models list": "kubectl slm models",
    "models list --size small --type instruct": "kubectl slm models --size small --type instruct",
    "models pull microsoft/phi-4-mini": "kubectl slm pull phi-4-mini --size 5Gi",
    "models pull deepseek/r1-distill-qwen-1.5b": "kubectl slm pull deepseek-r1-distill-qwen-1.5b --size 5Gi",
    "models test microsoft/phi-4-mini --benchmark": "kubectl slm bench NAME, once phi-4-mini is deployed",
    "deploy --config production.json": "kubectl slm convert production.json --apply",
    "foundry init": "nothing: the operator is installed with Helm, and there is no other state",
    "foundry --version": "kubectl slm version",
}


def of_foundry(**document: Any) -> tuple[dict[str, Any], list[str]]:
    draft = Draft()
    configure(draft, json.dumps(document))
    return draft.spec, [each.sentence for each in draft.notes]


def test_foundrys_two_files_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("production.json").write_text(DEPLOYMENT)
    Path("performance.json").write_text(PERFORMANCE)
    assert main(["convert", "production.json", "performance.json"]) == 0
    printed, told = capsys.readouterr()
    document = yaml.safe_load(printed)
    assert document["metadata"] == {"name": "phi-4-mini"}
    assert valid(document) == {
        "model": {"source": "catalog://phi-4-mini", "quantization": "Auto"},
        "runtime": {"parallel": 4, "contextLength": 4096, "kvCacheMemory": "4G"},
        "hardware": {"preference": ["npu", "gpu", "cpu"]},
        "endpoint": {"port": 8080},
    }
    assert "performance.json, line 1: performance.parallel_requests 8: " in told
    assert "the smallest counts, 4" in told
    assert main(["convert", "performance.json"]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["convert", "performance.json", "--model", "qwen2.5-3b", "--name", "q"]) == 0
    assert valid(yaml.safe_load(capsys.readouterr().out))["runtime"] == {"parallel": 8, "kvCacheMemory": "4G"}


@pytest.mark.parametrize(
    "named", ["microsoft/phi-4-mini", "deepseek/r1-distill-qwen-1.5b", "Phi-4-mini-instruct-generic-cpu:3"]
)
def test_foundrys_models_are_in_the_catalog(named: str) -> None:
    catalog = yaml.safe_load((ROOT / "charts/slm-operator/values.yaml").read_text())["catalog"]
    assert catalog_name(named) in catalog


@pytest.mark.parametrize(
    ("document", "spec"),
    [
        ({"performance": {"batch_processing": False}}, {"runtime": {"parallel": 1}}),
        (
            {"performance": {"hardware_scheduling": {"enable_dynamic_batching": False, "max_batch_size": 8}}},
            {"runtime": {"parallel": 1}},
        ),
        (
            {"performance": {"memory_optimization": {"max_cache_size": 1048576}}},
            {"runtime": {"kvCacheMemory": "1048576"}},
        ),
        (
            {"performance": {"memory_optimization": {"max_cache_size": "512MiB"}}},
            {"runtime": {"kvCacheMemory": "512Mi"}},
        ),
        (
            {"performance": {"memory_optimization": {"max_cache_size": "64 KB"}}},
            {"runtime": {"kvCacheMemory": "64k"}},
        ),
        ({"performance": {"memory_optimization": {"max_cache_size": "large"}}}, {}),
        ({"performance": {"memory_optimization": {"enable_kv_cache": False}}}, {}),
        ({"deployment": {"optimization": {"quantization": "int8"}}}, {"model": {"quantization": "Q8_0"}}),
        ({"deployment": {"optimization": {"quantization": "none"}}}, {}),
        ({"deployment": {"optimization": {"quantization": "weird"}}}, {}),
        ({"deployment": {"optimization": {"max_context": "many"}}}, {}),
        ({"deployment": {"optimization": {"max_context": True}}}, {}),
        ({"deployment": {"api": {"port": 0, "openai_compatible": False}}}, {}),
        (
            {"deployment": {"hardware": {"preferred": "auto", "fallback": "CUDA"}}},
            {"hardware": {"preference": ["gpu"]}},
        ),
        ({"deployment": {"hardware": {"preferred": "no such!"}}}, {}),
        ({"deployment": {"hardware": {"more": {"deep": 1}}}, "other": []}, {}),
    ],
)
def test_what_else_its_keys_may_say(document: dict[str, Any], spec: dict[str, Any]) -> None:
    found, notes = of_foundry(**document)
    assert found == spec
    assert spec or notes, "what isn't kept is told"


@pytest.mark.parametrize("text", ["{", "{}x", '{"a": ' * 3000])
def test_no_json(text: str) -> None:
    with pytest.raises(NotConverted):
        configure(Draft(), text)


def test_the_environment_of_an_ollama_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ollama.env"
    file.write_text(ENVIRONMENT)
    assert main(["convert", str(file), "--model", "ollama://qwen2.5:3b"]) == 0
    printed, told = capsys.readouterr()
    assert valid(yaml.safe_load(printed)) == {
        "model": {"source": "ollama://qwen2.5:3b"},
        "runtime": {
            "threads": 8,
            "gpuLayers": 35,
            "parallel": 4,
            "flashAttention": "Enabled",
            "keepAlive": "10m",
        },
        "hardware": {"preference": ["gpu", "cpu"]},
        "endpoint": {"port": 11434},
    }
    assert [each.partition(":")[0] for each in told.splitlines()] == [
        f"line {number}" for number in (1, 2, 5, 7, 9)
    ]


@pytest.mark.parametrize(
    ("line", "spec"),
    [
        ("export OLLAMA_NUM_PARALLEL=8", {"runtime": {"parallel": 8}}),
        ('Environment="OLLAMA_CONTEXT_LENGTH=8192"', {"runtime": {"contextLength": 8192}}),
        ("ENV OLLAMA_KV_CACHE_TYPE=q8_0", {"runtime": {"kvCacheType": "q8_0"}}),
        ("- OLLAMA_FLASH_ATTENTION=false", {"runtime": {"flashAttention": "Disabled"}}),
        ("OLLAMA_KEEP_ALIVE=300", {"runtime": {"keepAlive": "300s"}}),
        ("OLLAMA_KEEP_ALIVE=-1", {}),
        ("OLLAMA_KEEP_ALIVE=0", {}),
        ("OLLAMA_NUM_PARALLEL=0", {}),
        ("OLLAMA_KV_CACHE_TYPE=f8", {}),
        ("OLLAMA_GPU_LAYERS=0", {"hardware": {"preference": ["cpu"]}}),
        ("OLLAMA_NUM_GPU=0", {"hardware": {"preference": ["cpu"]}}),
        (
            "OLLAMA_ORIGINS=https://chat.example.com,app://*",
            {"endpoint": {"cors": {"allowedOrigins": ["https://chat.example.com"]}}},
        ),
        (
            "HSA_OVERRIDE_GFX_VERSION=10.3.0",
            {"runtime": {"env": [{"name": "HSA_OVERRIDE_GFX_VERSION", "value": "10.3.0"}]}},
        ),
        ("FOUNDRY_HARDWARE=npu,gpu,cpu", {"hardware": {"preference": ["npu", "gpu", "cpu"]}}),
        ("UNHEARD_OF=1", {}),
        ("# OLLAMA_NUM_PARALLEL=8", {}),
    ],
)
def test_a_variable_of_the_environment(line: str, spec: dict[str, Any]) -> None:
    draft = Draft()
    environment.configure(draft, environment.variables(f"\n{line}\n"))
    assert draft.spec == spec
    assert all(each.line == 2 for each in draft.notes)
    if spec:
        document = draft.converted("m").document
        document["spec"]["model"] = {"source": "ollama://m"}
        valid(document)


def test_a_kubernetes_deployment_of_such_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(SERVER)
    assert main(["convert", str(file)]) == 0
    printed, told = capsys.readouterr()
    assert valid(yaml.safe_load(printed)) == {
        "model": {"source": "catalog://phi-4-mini"},
        "hardware": {"preference": ["npu", "gpu", "cpu"]},
        "replicas": 3,
        "resources": {
            "requests": {"memory": "4Gi", "cpu": "2000m"},
            "limits": {"memory": "8Gi", "cpu": "4000m"},
        },
        "endpoint": {"port": 8080},
    }
    assert "resources: left out, they are fitted" in told


@pytest.mark.parametrize(("command", "instead"), COMMANDS.items())
def test_each_command_has_its_counterpart(command: str, instead: str) -> None:
    (told,) = commands.counterparts(f"#!/bin/sh\nset -e\n{command}\n")
    assert (told.line, told.what, told.why) == (3, command, instead)


def test_commands_in_a_containers_build_and_a_workflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "FROM ollama/ollama:latest\n"
        "RUN ollama serve & sleep 5 && ollama pull phi4:mini && ollama create a -f Modelfile\n"
        "    - run: foundry deploy --config production.json\n"
        'CMD ["ollama serve"]\n'
    )
    file = tmp_path / "Containerfile"
    file.write_text(text)
    assert main(["convert", str(file)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("it has commands, which make no manifest:")
    assert [each.partition(":")[0] for each in told[1:-1]] == [
        "line 2",
        "line 2",
        "line 2",
        "line 3",
        "line 4",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM llama3.2\n", "kubectl slm create NAME"),
        ("nothing of the kind\n", "OLLAMA_NUM_PARALLEL=4"),
        ("kind: Service\n", "Leave the one that serves"),
        ("kind: Deployment\nspec: {template: {spec: {containers: []}}}\n", "Leave the one that serves"),
        ("kind: [\n", "it is no YAML"),
        ('{"deployment": {"model": "??"}}', "names no model"),
        ('{"deployment": {"model": "ftp://x/y"}}', "names no model"),
    ],
)
def test_other_files_are_refused_with_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    assert main(["convert", str(file)]) == 2
    assert told in capsys.readouterr().err


def test_create_prints_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Modelfile").write_text(ASSISTANT)
    assert main(["create", "enterprise-assistant"]) == 0
    printed, told = capsys.readouterr()
    document = yaml.safe_load(printed)
    assert document["metadata"]["name"] == "enterprise-assistant"
    assert valid(document)["model"]["prompt"]["system"] == "\n(several lines)\n"
    assert len(told.splitlines()) == 4
    assert main(["create", "Not_A_Name"]) == 2
    assert "small letters" in capsys.readouterr().err
    assert main(["create", "a", "-f", "elsewhere"]) == 2
    assert "elsewhere can't be read: No such file" in capsys.readouterr().err
    Path("Modelfile").write_text("FROM ./m.gguf\n")
    assert main(["create", "a"]) == 2
    assert "Modelfile: line 1: FROM ./m.gguf is a file" in capsys.readouterr().err
    assert main(["create", "a", "--source", "pvc://c/m.gguf"]) == 0


def test_neither_verb_waits_for_what_it_doesnt_need() -> None:
    """What takes half a second to import is what the operator alone needs."""
    code = (
        "import sys; from kubectl_slm.verbs import convert, create;"
        "import kubectl_slm.others.modelfile, kubectl_slm.others.environment;"
        "sys.exit(str(sorted({'pydantic', 'yaml', 'jinja2'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=None)
    assert done.stderr.strip() == ""


def test_the_schemes_are_the_api_servers() -> None:
    assert {"ollama", "hf", "catalog"} <= set(SCHEMES)
