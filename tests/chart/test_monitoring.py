"""What Prometheus and Grafana are given: no query of a metric that there isn't."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from slm_contract.aliases import VLLM, VLLM_CACHE_INFO
from tests.chart import alerts, dashboards
from tests.chart.generate import ROOT
from tests.chart.rendering import EVERYTHING, Render
from tests.support import expositions

NAMED = re.compile(r"\b(?:slm|process)_[a-z_]+\b")


def samples(exposition: str) -> set[str]:
    families = text_string_to_metric_families(exposition)
    return {sample.name for family in families for sample in family.samples}


@pytest.fixture(scope="module")
def told() -> set[str]:
    return samples(expositions.of_runtime()) | samples(expositions.of_operator())


def queries() -> Iterator[tuple[str, str]]:
    yield from dashboards.queries()
    for each in (*alerts.MODELS, *alerts.PODS, *alerts.OPERATOR):
        yield each.name, each.expr


@pytest.mark.parametrize("query", [pytest.param(expr, id=place) for place, expr in queries()])
def test_every_query_is_of_metrics_that_there_are(query: str, told: set[str]) -> None:
    named = set(NAMED.findall(query))
    assert named
    assert named - told == set()


def test_every_metric_of_the_docs_is_told_and_every_word_has_one(told: set[str]) -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    told = told | samples(expositions.of_runtime(vllm="tiny"))
    documented = set(re.findall(r"`(slm_[a-z_]+[a-z])`", page))
    families = told | {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in told}
    assert documented - families == set()
    bases = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in told if name.startswith("slm_")}
    assert {name for name in bases if name not in page} == set()
    table = page.split("## Which metric for what")[1].split("\n## ")[0]
    for word in ("CPU", "GPU", "memory", "latency", "throughput", "error rate", "accuracy", "drift"):
        (row,) = re.findall(rf"^\| {word}\b.*$", table, flags=re.MULTILINE)
        assert set(NAMED.findall(row)) & families, f"{word} has no metric"


def test_vllm_s_names_are_there_where_they_are_asked_for() -> None:
    plain, both = expositions.of_runtime(), expositions.of_runtime(vllm="tiny")
    assert "vllm:" not in plain
    found = {
        sample.name: sample for family in text_string_to_metric_families(both) for sample in family.samples
    }
    assert found["vllm:num_requests_running"].value == 2
    assert found["vllm:num_requests_waiting"].value == 1
    assert found["vllm:kv_cache_usage_perc"].value == 0.25
    assert found["vllm:kv_cache_usage_perc"].labels == {"model_name": "tiny"}
    assert found["vllm:time_to_first_token_seconds_count"].value == 1
    cache = found[VLLM_CACHE_INFO].labels
    assert int(cache["block_size"]) * int(cache["num_gpu_blocks"]) == 1024
    assert {alias for alias in VLLM.values() if not any(name.startswith(alias) for name in found)} == set()


def test_rules_and_dashboards_are_made_where_they_are_asked_for(render: Render) -> None:
    rendered = render(EVERYTHING)
    rule = rendered.one("PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "stack"
    expected = json.dumps(alerts.rules()).replace(alerts.FIRST_TOKEN, "2.5").replace(alerts.QUEUE, "30")
    assert rule["spec"] == json.loads(expected)
    maps = [each for each in rendered.kind("ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]]
    assert {name for each in maps for name in each["data"]} == {f"{name}.json" for name in dashboards.ALL}
    for each in maps:
        assert each["metadata"]["annotations"] == {"grafana_folder": "Models"}
        (text,) = each["data"].values()
        assert json.loads(text) == dashboards.ALL[each["metadata"]["name"].rsplit("-")[-1]].document()
    assert "grafana_dashboard" not in str(render().objects)


def test_labels_of_the_site_are_on_all_that_prometheus_selects(render: Render) -> None:
    rendered = render(
        {**EVERYTHING, "metrics": {"serviceMonitor": {"enabled": True, "labels": {"team": "a"}}}}
    )
    assert (
        rendered.one("ServiceMonitor")["metadata"]["labels"].items()
        >= {"release": "stack", "team": "a"}.items()
    )
    assert yaml.safe_load(rendered.settings_text())["monitoring"]["labels"] == {"release": "stack"}
