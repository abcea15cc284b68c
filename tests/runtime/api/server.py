"""A real serving process, as a pod runs it: its configuration in the environment, its keys in a folder."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from slm_contract.config import ModelConfig, RuntimeConfig
from slm_contract.report import RuntimeReport
from slm_runtime.fetching.inspect import inspect_file
from slm_runtime.models.folder import ModelFolder
from tests.support.ports import free_ports

KEY = "sk-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@dataclass
class ServeProcess:
    process: subprocess.Popen[bytes]
    name: str
    base: str
    ops: str
    log: Path

    def probe(self, path: str) -> int:
        return httpx.get(self.ops + path, trust_env=False).status_code

    def report(self) -> RuntimeReport:
        return RuntimeReport.model_validate_json(httpx.get(f"{self.ops}/report", trust_env=False).content)

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.ops}/metrics", trust_env=False).text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))

    def wait_ready(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if self.probe("/readyz") == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds} s: {self.log.read_text()}")

    def wait_draining(self, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while self.report().phase != "Draining":
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def wait_for(self, name: str, value: float, seconds: float = 30) -> None:
        """Until a metric has come to a value."""
        end = time.monotonic() + seconds
        while self.metric(name) < value:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def stop(self) -> int:
        """As kubelet does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def linked(path: Path, folder: Path) -> ModelConfig:
    """A file where a fetch would have put it: below `models` in the folder."""
    facts = inspect_file(path)
    config = ModelConfig(name=path.stem, source=f"file://{path}")
    place = ModelFolder(folder / "models", config)
    with place.locked():
        place.link(facts.file_name, path)
        place.publish(facts)
    return config


@contextlib.contextmanager
def serving(
    model: ModelConfig, model_dir: Path, folder: Path, *, wait: bool = True, **settings: Any
) -> Iterator[ServeProcess]:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    (keys / "primary").write_text(KEY)
    settings = {"context_length": 2048, "drain_seconds": 0, "grace_seconds": 20, **settings}
    config = RuntimeConfig(model=model, **settings)
    api, ops = free_ports(2)
    environment = {
        **os.environ,
        "SLM_CONFIG": config.to_json(),
        "SLM_HOST": "127.0.0.1",
        "SLM_API_PORT": str(api),
        "SLM_OPS_PORT": str(ops),
        "SLM_MODEL_DIR": str(model_dir),
        "SLM_KEYS_DIR": str(keys),
        "SLM_TERMINATION_MESSAGE": str(folder / "termination"),
    }
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "slm_runtime", "serve"], env=environment, stdout=output, stderr=output
        )
    try:
        it = ServeProcess(process, model.name, f"http://127.0.0.1:{api}", f"http://127.0.0.1:{ops}", log)
        if wait:
            it.wait_ready()
        yield it
    finally:
        process.kill()
        process.wait()
