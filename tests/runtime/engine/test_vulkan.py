"""Models on a GPU by way of Vulkan; Mesa's software device does as well as one of silicon."""

import contextlib
import json
import os
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from slm_contract.config import HardwareConfig
from slm_runtime.engine.loading import Offload
from tests.runtime.api.server import HEADERS, serving
from tests.runtime.engine.accelerators import VISIBLE, vulkan
from tests.runtime.engine.conforming import Served, span

pytestmark = [pytest.mark.runtime, pytest.mark.gpu]

TOKENS = [1, *range(20, 120)]
"""More than the library computes on the CPU by itself, where it knows of a device."""
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
"""The model is sure of each token of its answer; where it wavers, another way of rounding decides."""
ELSEWHERE = """
import json, sys
from slm_runtime.engine.llama_cpp.load import load
from slm_runtime.engine.loading import EngineConfig
from tests.runtime.engine.conforming import span

config, tokens = json.loads(sys.argv[1])
engine, info = load(EngineConfig(**config))
row = engine.step([span(0, 0, tokens)])[0]
print(json.dumps([info.provider, info.device, info.layers_offloaded, info.device_total, row.tolist()]))
"""


@pytest.fixture(scope="module", autouse=True)
def device():
    return vulkan()


def hidden(**config):
    """Provider, device, offloaded layers, its memory and the last row, from a process that sees no device."""
    given = {"context_length": 512, "parallel": 1, "threads": 1, **config}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps([given, TOKENS])],
        env={**os.environ, VISIBLE: ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def written(engine, prompt, tokens):
    served = Served(engine)
    served.ask(1, prompt, max_tokens=tokens)
    served.drain()
    return served.text[1]


def test_all_layers_are_offloaded_and_the_device_is_told(make_engine, tiny, device):
    engine = make_engine(tiny, provider="vulkan", gpu_layers=-1)
    info = engine.info
    engine.close()
    assert info.provider == "vulkan"
    assert device.description in info.device
    assert info.layers_offloaded == info.layers_total > 0
    assert 0 < info.device_free <= info.device_total


def test_a_model_writes_what_it_writes_on_the_cpu(make_engine, small):
    texts = {}
    for provider in ("cpu", "vulkan"):
        engine = make_engine(small, provider=provider, gpu_layers=-1, parallel=1, batch_size=64)
        texts[provider] = written(engine, QUESTION, 8)
        engine.close()
    assert texts["vulkan"] == texts["cpu"] == "The capital of France is Paris."


@pytest.mark.parametrize(("asked", "offloaded"), [(1, 1), (0, 0)])
def test_as_many_layers_as_are_asked_for(make_engine, tiny, asked, offloaded):
    engine = make_engine(tiny, provider="vulkan", gpu_layers=asked)
    assert engine.info.layers_offloaded == offloaded
    assert engine.info.provider == ("vulkan" if offloaded else "cpu")
    engine.close()


def test_as_many_layers_as_fit(make_engine, tiny, device):
    free, _ = device.memory()
    offload = Offload(layers=3, layer_bytes=free // 2, reserve_bytes=free // 4)
    engine = make_engine(tiny, provider="vulkan", gpu_layers=-1, offload=offload)
    assert engine.info.layers_offloaded == 1
    engine.close()


def test_whoever_asks_for_the_cpu_computes_there_alone(make_engine, tiny):
    engine = make_engine(tiny, provider="cpu", gpu_layers=-1, parallel=1, threads=1)
    here = engine.step([span(0, 0, TOKENS)])[0].copy()
    assert (engine.info.provider, engine.info.layers_offloaded) == ("cpu", 0)
    engine.close()
    np.testing.assert_array_equal(here, np.array(hidden(model_path=str(tiny))[-1], dtype=np.float32))


def test_a_hidden_device_is_not_used_and_the_cpu_is_told(tiny):
    provider, device, offloaded, total, _ = hidden(model_path=str(tiny), provider="vulkan", gpu_layers=-1)
    assert (provider, offloaded, total) == ("cpu", 0, 0)
    assert device.startswith("cpu (")


def served(tiny_model, tmp_path, **hardware):
    model, model_dir = tiny_model
    asked = HardwareConfig(provider="vulkan", gpu_layers=-1, **hardware)
    return serving(model, model_dir, tmp_path, hardware=asked, wait=False)


def test_a_server_reports_the_device_and_answers_from_it(tiny_model, tmp_path, device):
    with served(tiny_model, tmp_path, on_degraded="Fail") as server:
        server.wait_ready()
        told = server.report().acceleration
        asked = {"model": "tiny", "prompt": "hello", "max_tokens": 4}
        answer = httpx.post(f"{server.base}/v1/completions", json=asked, headers=HEADERS, timeout=60)
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert (told.provider, told.device, told.degraded) == ("vulkan", device.description, False)
    assert told.layers == told.layers_total > 0
    assert 0 < told.memory_free <= told.memory_total


def test_a_server_without_its_device_is_degraded(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "")
    with served(tiny_model, tmp_path) as server:
        server.wait_ready()
        told = server.report().acceleration
    assert (told.provider, told.layers, told.degraded) == ("cpu", 0, True)


def test_a_server_that_may_not_be_degraded_stays_unready(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "")
    with served(tiny_model, tmp_path, on_degraded="Fail") as server:
        while (report := told(server)) is None or report.failure is None:
            time.sleep(0.1)
        assert server.probe("/readyz") == 503
    assert report.failure.reason == "AccelerationDegraded"
    assert "instead of vulkan" in report.failure.message


def told(server):
    """The report; None before there is one."""
    with contextlib.suppress(httpx.TransportError):
        return server.report()
    return None
