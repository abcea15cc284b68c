"""Each alert fires where it should, and is quiet a moment before: by Prometheus' own tool."""

import json
from pathlib import Path
from typing import Any

import pytest

from slm_contract import metrics as runtime
from slm_operator import metrics as operator
from tests.chart import alerts
from tests.chart.alerts import Alert
from tests.ecosystem.prometheus import file_of_cases, promtool

ALL = (*alerts.MODELS, *alerts.PODS, *alerts.OPERATOR)
DEPLOYMENT = {"deployment_namespace": "demo", "deployment": "tiny"}
POD = {"namespace": "demo", "job": "tiny", "pod": "tiny-1"}
AT = {"namespace": "slm", "job": "operator", "pod": "operator-1"}


def series(name: str, labels: dict[str, str], values: str) -> dict[str, str]:
    text = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{text}}}", "values": values}


def condition(kind: str, value: int) -> dict[str, str]:
    return series(operator.CONDITION, {**DEPLOYMENT, "type": kind}, f"{value}x100")


def slow(histogram: str) -> list[dict[str, str]]:
    """Every observation took between 60 and 120 seconds."""
    return [
        series(f"{histogram}_bucket", {**POD, "le": le}, values)
        for le, values in (("60", "0x100"), ("120", "0+6x100"), ("+Inf", "0+6x100"))
    ]


INPUTS: dict[str, list[dict[str, str]]] = {
    "SLMNothingReady": [condition("Ready", 0), condition("Available", 0)],
    "SLMStalled": [condition("Stalled", 1)],
    "SLMFetchStuck": [condition("ModelReady", 0), condition("Available", 0)],
    "SLMDrifting": [condition("Drifting", 1)],
    "SLMSourceDrifted": [condition("SourceDrifted", 1)],
    "SLMNotScraped": [condition("MonitoringReady", 0)],
    "SLMQueueSlow": slow(runtime.QUEUE_SECONDS),
    "SLMFirstTokenSlow": slow(runtime.TIME_TO_FIRST_TOKEN),
    "SLMErrors": [
        series(f"{runtime.REQUESTS}_total", {**POD, "route": "/v1/completions", "code": code}, values)
        for code, values in (("200", "0+9x100"), ("500", "0+1x100"))
    ],
    "SLMEngineRestarts": [series(f"{runtime.ENGINE_RESTARTS}_total", POD, "0x40 1 2x60")],
    "SLMCanaryFailing": [series(runtime.CANARY_PASSED, {**POD, "canary": "capital"}, "0x100")],
    "SLMOperatorNotActing": [series(operator.LEADER, AT, "0x100")],
    "SLMOperatorBehind": [series(operator.QUEUE_OLDEST, AT, "400x100")],
}
QUIET = [
    condition("Ready", 1),
    condition("Available", 1),
    condition("ModelReady", 1),
    condition("MonitoringReady", 1),
    series(f"{runtime.REQUESTS}_total", {**POD, "code": "200"}, "0+9x100"),
    series(f"{runtime.ENGINE_RESTARTS}_total", POD, "0x100"),
    series(f"{runtime.CANARY_PASSED}", {**POD, "canary": "capital"}, "1x100"),
    series(operator.LEADER, AT, "1x100"),
    series(operator.QUEUE_OLDEST, AT, "0x100"),
    *(
        series(f"{histogram}_bucket", {**POD, "le": le}, "0+6x100")
        for histogram in (runtime.QUEUE_SECONDS, runtime.TIME_TO_FIRST_TOKEN)
        for le in ("1", "+Inf")
    ),
]


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    """As the chart writes them by default."""
    text = json.dumps(alerts.rules()).replace(alerts.FIRST_TOKEN, "10").replace(alerts.QUEUE, "30")
    read: dict[str, Any] = json.loads(text)
    return read


def test_prometheus_reads_the_rules(rules: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.json", cwd=tmp_path)
    assert f"{len(ALL)} rules found" in said


def test_nothing_fires_where_all_is_well(rules: dict[str, Any], tmp_path: Path) -> None:
    quiet = [{"alertname": each.name, "eval_time": "90m", "exp_alerts": []} for each in ALL]
    case = {"interval": "1m", "input_series": QUIET, "alert_rule_test": quiet}
    promtool("test", "rules", file_of_cases(rules, [case], tmp_path), cwd=tmp_path)


@pytest.mark.parametrize("alert", ALL, ids=lambda alert: alert.name)
def test_every_alert_fires_once(alert: Alert, rules: dict[str, Any], tmp_path: Path) -> None:
    checks = f'ALERTS{{alertname="{alert.name}", alertstate="firing"}}'
    counted = {"expr": f"count({checks})", "eval_time": "60m", "exp_samples": [{"labels": "{}", "value": 1}]}
    before = {"expr": f"count({checks})", "eval_time": "0m", "exp_samples": []}
    case = {
        "interval": "1m",
        "input_series": INPUTS[alert.name],
        "promql_expr_test": [counted, before],
    }
    promtool("test", "rules", file_of_cases(rules, [case], tmp_path), cwd=tmp_path)
