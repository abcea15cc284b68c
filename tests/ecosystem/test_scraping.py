"""A real Prometheus scrapes a real serving process and the operator's page: every query that we ship has data."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from typing_extensions import override

from slm_contract import metrics as runtime
from slm_contract.config import CanaryConfig, ModelConfig
from slm_runtime.fetching.inspect import inspect_file
from tests.chart import alerts, dashboards
from tests.ecosystem.prometheus import Prometheus, prometheus
from tests.runtime.api.server import HEADERS, ServeProcess, serving
from tests.support import expositions
from tests.support.gguf import write_tiny_gguf

CANARY = CanaryConfig(
    name="same", prompt="Which day is it?", same_as_first=True, every_seconds=1, max_tokens=8
)
WINDOW = "15s"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("models")
    model = ModelConfig(name="tiny", source="https://example.org/tiny.gguf")
    (folder / model.key).mkdir()
    path = write_tiny_gguf(folder / model.key / "tiny.gguf")
    (folder / model.key / "model.json").write_text(inspect_file(path).to_json())
    run = tmp_path_factory.mktemp("run")
    with serving(model, folder, run, canaries=(CANARY,), metric_aliases=("vLLM",), speculation=True) as it:
        yield it


@pytest.fixture(scope="module")
def operator_page() -> Iterator[str]:
    """The address of what the operator tells."""
    page = expositions.of_operator().encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        @override
        def log_message(self, format: str, *args: object) -> None:
            return

    web = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield f"127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture(scope="module")
def scraping(
    server: ServeProcess, operator_page: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    rules = json.dumps(alerts.rules()).replace(alerts.FIRST_TOKEN, "0.000001").replace(alerts.QUEUE, "30")
    targets = {
        server.ops.removeprefix("http://"): {"namespace": "demo", "job": "tiny", "pod": "tiny-1"},
        operator_page: {"namespace": "slm", "job": "operator", "pod": "operator-1"},
    }
    with prometheus(tmp_path_factory.mktemp("prometheus"), targets, json.loads(rules)) as it:
        it.wait_for(runtime.READY)
        yield it


def ask(server: ServeProcess) -> None:
    """Twice the same, the second time with what the answer will be: so something is guessed, and comes true."""
    wanted = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 64,
        "temperature": 0,
    }
    address = f"{server.base}/v1/chat/completions"
    answer = httpx.post(address, json=wanted, headers=HEADERS, trust_env=False, timeout=60).json()
    foretold = {"type": "content", "content": answer["choices"][0]["message"]["content"]}
    again = {**wanted, "prediction": foretold}
    httpx.post(address, json=again, headers=HEADERS, trust_env=False, timeout=60).raise_for_status()


def queries() -> Iterator[tuple[str, str]]:
    for place, expr in dashboards.queries():
        yield place, expr.replace(dashboards.WINDOW, WINDOW)
    for each in (*alerts.MODELS, *alerts.PODS, *alerts.OPERATOR):
        # What it compares, whatever it is compared with.
        yield each.name, re.sub(r" (?:==|>) [0-9A-Z_.]+", "", each.expr)


@pytest.mark.parametrize("query", [pytest.param(expr, id=place) for place, expr in queries()])
def test_every_query_has_data(query: str, scraping: Prometheus, server: ServeProcess) -> None:
    ask(server)
    scraping.wait_for(query)


def test_prometheus_takes_every_rule_and_an_objective_that_is_missed_is_told(
    scraping: Prometheus, server: ServeProcess
) -> None:
    ask(server)
    rules = {each["name"]: each for each in scraping.rules()}
    assert set(rules) == {each.name for each in (*alerts.MODELS, *alerts.PODS, *alerts.OPERATOR)}
    assert {each["health"] for each in rules.values()} <= {"ok", "unknown"}
    pending = 'ALERTS{alertname="SLMFirstTokenSlow", alertstate="pending"}'
    (told,) = scraping.wait_for(pending)
    assert (told["metric"]["namespace"], told["metric"]["job"]) == ("demo", "tiny")


def test_vllm_s_names_are_scraped(scraping: Prometheus) -> None:
    for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:cache_config_info"):
        (found,) = scraping.wait_for(f'{{"{name}"}}')
        assert found["metric"]["model_name"] == "tiny"
