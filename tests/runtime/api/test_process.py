"""The serving process from start to stop, with a model that loads in no time."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from slm_contract import metrics
from slm_contract.config import ModelConfig, PromptConfig, PromptParameters
from slm_contract.places import CONFIG_ENV, ExitCode
from slm_contract.report import RuntimeReport
from slm_contract.retention import Retention
from slm_runtime.models.lock import writing
from slm_runtime.models.prune import prune
from tests.runtime.api.server import KEY, ServeProcess, serving

pytestmark = pytest.mark.runtime

Tiny = tuple[ModelConfig, Path]


def connect(server: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.base}/v1", api_key=KEY, max_retries=0, timeout=60)


def stream(server: ServeProcess, tokens: int) -> "openai.Stream[openai.types.chat.ChatCompletionChunk]":
    return connect(server).chat.completions.create(
        model=server.name,
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        max_tokens=tokens,
        # The end tokens of the tiny model: it never stops by itself.
        logit_bias={"2": -100},
    )


def test_it_becomes_ready_and_reports(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path) as server:
        assert [server.probe(path) for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 200]
        report = server.report()
        assert report.phase == "Ready"
        assert report.context_length == 2048
        assert report.performance is not None
        assert report.performance.tokens_per_second > 0
        assert report.memory is not None
        assert report.memory.resident > 0
        assert server.stop() == ExitCode.OK


def test_nothing_stays_of_a_start_that_fails() -> None:
    """The engine process was started already, and has nobody to tell it what to load."""
    environment = {name: value for name, value in os.environ.items() if name != CONFIG_ENV}
    command = [sys.executable, "-m", "slm_runtime", "serve"]
    # The output ends when the last process that could write to it does.
    failed = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert failed.returncode == ExitCode.CONFIG_INVALID
    assert f"{CONFIG_ENV} is empty" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_what_is_served_is_not_removed_from_the_volume(tiny_model: Tiny, tmp_path: Path) -> None:
    """By whatever pull on whatever node, as long as the process lives."""
    model, model_dir = tiny_model
    volume = tmp_path / "models"
    shutil.copytree(model_dir, volume)
    with writing(volume / model.folder):
        pass
    with serving(model, volume, tmp_path) as server:
        assert prune(volume, Retention(keep=(), grace_seconds=0), time.time() + 3600) is None
        assert server.stop() == ExitCode.OK
    removed = prune(volume, Retention(keep=(), grace_seconds=0), time.time() + 3600)
    assert removed is not None
    assert removed.models == 1


def test_what_runs_is_finished_and_new_connections_are_refused(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path) as server:
        answer = stream(server, 1500)
        next(iter(answer))
        server.process.send_signal(signal.SIGTERM)
        chunks = list(answer)
        assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
        assert server.process.wait(30) == ExitCode.OK
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.base}/", trust_env=False)


def test_while_it_drains_it_is_ready_and_answers(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path, drain_seconds=60, grace_seconds=60) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_draining()
        assert [server.probe(path) for path in ("/livez", "/readyz")] == [200, 200]
        assert list(stream(server, 3))[-1].choices[0].finish_reason
        # A second signal means: now.
        assert server.stop() == ExitCode.OK


def test_it_drains_for_as_long_as_somebody_asks(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path, drain_seconds=3, grace_seconds=600) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_draining()
        begun = time.monotonic()
        while time.monotonic() < begun + 5:
            assert list(stream(server, 3))[-1].choices[0].finish_reason
        assert server.process.wait(30) == ExitCode.OK


def test_embeddings_under_way_are_finished(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path) as server, ThreadPoolExecutor() as pool:
        client = connect(server)
        asked = pool.submit(client.embeddings.create, model=server.name, input=["word " * 200] * 256)
        server.wait_for(metrics.RUNNING, 1)
        server.process.send_signal(signal.SIGTERM)
        assert len(asked.result().data) == 256
        assert server.process.wait(30) == ExitCode.OK


def test_what_still_waits_at_the_end_may_be_sent_again(tiny_model: Tiny, tmp_path: Path) -> None:
    with (
        serving(*tiny_model, tmp_path, parallel=1) as server,
        httpx.Client(
            base_url=server.base, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
        ) as client,
        ThreadPoolExecutor(12) as pool,
    ):

        def ask(number: int) -> httpx.Response:
            body = {
                "model": server.name,
                "prompt": f"{number}",
                "n": 8,
                "max_tokens": 1900,
                "ignore_eos": True,
            }
            return client.post("/v1/completions", json=body)

        asked = [pool.submit(ask, number) for number in range(12)]
        server.wait_for(metrics.WAITING, 11)
        server.process.send_signal(signal.SIGTERM)
        server.wait_draining()
        server.process.send_signal(signal.SIGTERM)
        failed = [each.result() for each in asked if each.result().status_code != 200]
        assert all("shutting down" in answer.text for answer in failed)
        statuses = Counter(answer.status_code for answer in failed)
        assert statuses[503] > statuses[500], statuses
        assert server.process.wait(30) == ExitCode.OK
        assert "Traceback" not in server.log.read_text()


def test_a_dead_engine_is_replaced(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path) as server:
        (engine,) = [pid for pid in children(server.process.pid) if "engine" in command(pid)]
        os.kill(engine, signal.SIGKILL)
        end = time.monotonic() + 30
        while server.report().engine_restarts == 0 or server.probe("/readyz") != 200:
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.05)
        assert list(stream(server, 3))[-1].choices[0].finish_reason


def test_what_the_deployment_says_reaches_model_and_engine(tiny_model: Tiny, tmp_path: Path) -> None:
    prompt = PromptConfig(system="Be kind.", parameters=PromptParameters(max_tokens=3))
    computed = {}
    for flash_attention in (True, False):
        folder = tmp_path / str(flash_attention)
        folder.mkdir()
        with serving(*tiny_model, folder, flash_attention=flash_attention, prompt=prompt) as server:
            client = openai.OpenAI(base_url=f"{server.base}/v1", api_key=KEY, max_retries=0, timeout=60)
            with client:
                answer = client.chat.completions.create(
                    model=server.name, messages=[{"role": "user", "content": "x"}], logit_bias={"2": -100}
                )
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 3
            report = server.report()
            assert report.memory is not None
            computed[flash_attention] = report.memory.compute
    assert computed[False] > computed[True]


def test_an_idle_model_leaves_memory_and_comes_back(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path, keep_alive_seconds=1) as server:

        def engines() -> list[int]:
            return [pid for pid in children(server.process.pid) if "engine" in command(pid)]

        def until(unloaded: bool) -> None:
            end = time.monotonic() + 30
            while server.report().unloaded != unloaded or bool(engines()) == unloaded:
                assert time.monotonic() < end, server.log.read_text()
                time.sleep(0.05)

        until(unloaded=True)
        assert [server.probe(path) for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 200]
        # A client's wish changes what `ps` shows, and nothing else.
        http = httpx.Client(base_url=server.base, headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
        with http:
            asked = {"model": server.name, "prompt": "x", "stream": False, "keep_alive": -1}
            answer = http.post("/api/generate", json={**asked, "options": {"num_predict": 3}}, timeout=60)
            assert answer.json()["eval_count"] > 0
        until(unloaded=True)
        assert list(stream(server, 3))[-1].choices[0].finish_reason
        assert server.report().engine_restarts == 0


def test_probes_answer_while_the_api_is_flooded(tiny_model: Tiny, tmp_path: Path) -> None:
    with serving(*tiny_model, tmp_path) as server:
        stop = threading.Event()
        huge = b'{"messages": [' + b",".join([b'{"role": "user", "content": "x"}'] * 100_000) + b"]}"

        def flood() -> None:
            with httpx.Client(trust_env=False, timeout=60) as http:
                while not stop.is_set():
                    http.post(
                        f"{server.base}/v1/chat/completions",
                        content=huge,
                        headers={"authorization": f"Bearer {KEY}"},
                    )

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            assert [server.probe("/livez") for _ in range(50)] == [200] * 50
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_port_in_use_is_said_in_one_sentence(tiny_model: Tiny, tmp_path: Path) -> None:
    (tmp_path / "termination").touch()
    with serving(*tiny_model, tmp_path, wait=False) as server:
        port = int(server.base.rsplit(":", 1)[1])
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            assert server.process.wait(30) == ExitCode.PORT_IN_USE
    last = json.loads(server.log.read_text().splitlines()[-1])
    assert last["message"] == f"Port {port} on 127.0.0.1 is in use by another process."
    report = RuntimeReport.model_validate_json((tmp_path / "termination").read_bytes())
    assert report.failure is not None
    assert report.failure.reason == "PortInUse"


def test_a_model_that_was_not_fetched_is_said(tmp_path: Path) -> None:
    model = ModelConfig(name="none", source="https://example.org/none.gguf")
    with serving(model, tmp_path / "models", tmp_path, wait=False) as server:
        assert server.process.wait(30) == ExitCode.MODEL_INVALID
    assert "no fetched model" in server.log.read_text()


def test_a_file_that_is_no_model_ends_the_process(tiny_model: Tiny, tmp_path: Path) -> None:
    model, model_dir = tiny_model
    broken = tmp_path / "models" / model.key
    broken.mkdir(parents=True)
    (broken / "model.json").write_bytes((model_dir / model.key / "model.json").read_bytes())
    (broken / "tiny.gguf").write_bytes(b"GGUF but not really")
    with serving(model, tmp_path / "models", tmp_path, wait=False) as server:
        assert server.process.wait(60) == ExitCode.MODEL_INVALID


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> str:
    """Empty if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
