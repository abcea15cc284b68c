"""A real Prometheus that scrapes what it is told to, once a second."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster import tools
from tests.support.ports import free_ports


def promtool(*arguments: str | Path, cwd: Path) -> str:
    """What promtool says; it fails the test where it isn't content."""
    done = subprocess.run(
        [tools.prometheus.path("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass
class Prometheus:
    base: str
    log: Path

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples that a query has now."""
        answer = httpx.get(f"{self.base}/api/v1/query", params={"query": expr}, trust_env=False, timeout=10)
        document = answer.json()
        assert document["status"] == "success", f"{expr}: {document}"
        found: list[dict[str, Any]] = document["data"]["result"]
        return found

    def wait_for(self, expr: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Until a query has samples."""
        end = time.monotonic() + seconds
        while not (found := self.query(expr)):
            assert time.monotonic() < end, f"no data: {expr}\n{self.log.read_text()[-2000:]}"
            time.sleep(0.5)
        return found

    def rules(self) -> list[dict[str, Any]]:
        document = httpx.get(f"{self.base}/api/v1/rules", trust_env=False).json()
        return [rule for group in document["data"]["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, Mapping[str, str]], rules: Mapping[str, Any]
) -> Iterator[Prometheus]:
    """Of these addresses, with these labels each, as a ServiceMonitor would give them."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": f"target-{number}",
                "static_configs": [{"targets": [address], "labels": dict(labels)}],
            }
            for number, (address, labels) in enumerate(targets.items())
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (port,) = free_ports(1)
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                tools.prometheus.path("prometheus"),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        it = Prometheus(f"http://127.0.0.1:{port}", log)
        _wait_ready(it, process)
        yield it
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(it: Prometheus, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, it.log.read_text()
        try:
            if httpx.get(f"{it.base}/-/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, it.log.read_text()
        time.sleep(0.1)


def file_of_cases(rules: Mapping[str, Any], cases: list[dict[str, Any]], folder: Path) -> Path:
    """What `promtool test rules` reads."""
    (folder / "rules.json").write_text(json.dumps(rules))
    path = folder / "cases.json"
    path.write_text(json.dumps({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": cases}))
    return path
