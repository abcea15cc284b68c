"""The chart's Grafana dashboards, made from the metrics' names: `charts/slm-operator/files/dashboards/`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from slm_contract import metrics as runtime
from slm_operator import metrics as operator
from tests.chart.queries import condition, errors, quantile, rate, share, total

WINDOW: Final = "$__rate_interval"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 24
_ALL: Final = 'namespace=~"$namespace"'
_ONE: Final = 'namespace=~"$namespace", job=~"$model"'
_MODEL: Final = "{{namespace}}/{{job}}"


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """As Grafana names it."""
    queries: dict[str, str]
    """By the legend."""
    kind: str = "timeseries"

    def document(self, number: int) -> dict[str, Any]:
        row, column = divmod(number * _WIDTH, _COLUMNS)
        targets = [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
                **({"instant": True, "format": "table"} if self.kind == "table" else {}),
            }
            for index, (legend, expr) in enumerate(self.queries.items())
        ]
        return {
            "id": number + 1,
            "type": self.kind,
            "title": self.title,
            "datasource": SOURCE,
            "gridPos": {"x": column, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "targets": targets,
        }


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    variables: tuple[dict[str, Any], ...]
    panels: tuple[Panel, ...]

    def document(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["slm-operator"],
            "schemaVersion": 39,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [_DATASOURCE, *self.variables]},
            "panels": [panel.document(number) for number, panel in enumerate(self.panels)],
        }


_DATASOURCE: Final = {
    "name": "datasource",
    "type": "datasource",
    "query": "prometheus",
    "label": "Prometheus",
}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


_NAMESPACE: Final = _variable("namespace", f"label_values({runtime.READY}, namespace)")
_MODELS: Final = _variable("model", f'label_values({runtime.READY}{{namespace=~"$namespace"}}, job)')


def _latency(histogram: str, where: str) -> dict[str, str]:
    return {
        f"{int(part * 100)} % {_MODEL}": quantile(part, histogram, WINDOW, where=where)
        for part in (0.5, 0.95, 0.99)
    }


FLEET: Final = Dashboard(
    "slm-fleet",
    "Small language models: fleet",
    (_NAMESPACE,),
    (
        Panel("Models that are as asked for", "short", {"ready": f"sum({condition('Ready')})"}, "stat"),
        Panel("Models that aren't", "short", {"not ready": f"sum({condition('Ready')} == bool 0)"}, "stat"),
        Panel("Pods that serve", "short", {"pods": f"sum({runtime.READY}{{{_ALL}}})"}, "stat"),
        Panel(
            "What is not well",
            "short",
            {"": f'{operator.CONDITION}{{type=~"Ready|Available"}} == 0'},
            "table",
        ),
        Panel("What is served", "short", {"": f"{runtime.MODEL_INFO}{{{_ALL}}}"}, "table"),
        Panel("Requests a second", "reqps", {_MODEL: rate(runtime.REQUESTS, WINDOW, where=_ALL)}),
        Panel("Failed requests", "percentunit", {_MODEL: errors(WINDOW, where=_ALL)}),
        Panel("Tokens a second", "short", {_MODEL: rate(runtime.GENERATED_TOKENS, WINDOW, where=_ALL)}),
        Panel(
            "First token, 95 %",
            "s",
            {_MODEL: quantile(0.95, runtime.TIME_TO_FIRST_TOKEN, WINDOW, where=_ALL)},
        ),
        Panel("Requests that wait", "short", {_MODEL: total(runtime.WAITING, where=_ALL)}),
        Panel(
            "KV cache in use",
            "percentunit",
            {_MODEL: f"max by (namespace, job) ({runtime.KV_USAGE}{{{_ALL}}})"},
        ),
        Panel(
            "Memory of the engines",
            "bytes",
            {_MODEL: total(f"{runtime.ENGINE_PROCESS}_resident_memory_bytes", where=_ALL)},
        ),
        Panel(
            "CPUs of the engines",
            "short",
            {_MODEL: rate(f"{runtime.ENGINE_PROCESS}_cpu_seconds", WINDOW, where=_ALL)},
        ),
        Panel(
            "Deaths of engines in an hour",
            "short",
            {_MODEL: f"sum by (namespace, job) (increase({runtime.ENGINE_RESTARTS}_total{{{_ALL}}}[1h]))"},
        ),
        Panel(
            "Canaries as expected",
            "short",
            {
                f"{_MODEL} {{{{canary}}}}": f"min by (namespace, job, canary) ({runtime.CANARY_PASSED}{{{_ALL}}})"
            },
        ),
    ),
)

MODEL: Final = Dashboard(
    "slm-model",
    "Small language models: one model",
    (_NAMESPACE, _MODELS),
    (
        Panel("Pods that serve", "short", {_MODEL: total(runtime.READY, where=_ONE)}, "stat"),
        Panel("What is served", "short", {"": f"{runtime.MODEL_INFO}{{{_ONE}}}"}, "table"),
        Panel("Failed requests", "percentunit", {_MODEL: errors(WINDOW, where=_ONE)}),
        Panel(
            "Requests a second",
            "reqps",
            {"{{route}} {{code}}": rate(runtime.REQUESTS, WINDOW, where=_ONE, by="route, code")},
        ),
        Panel("To the first token", "s", _latency(runtime.TIME_TO_FIRST_TOKEN, _ONE)),
        Panel("Between tokens", "s", _latency(runtime.INTER_TOKEN, _ONE)),
        Panel("Whole answers", "s", _latency(runtime.REQUEST_SECONDS, _ONE)),
        Panel("Wait for their turn", "s", _latency(runtime.QUEUE_SECONDS, _ONE)),
        Panel(
            "Requests",
            "short",
            {
                "running": f"sum({runtime.REQUESTS_RUNNING}{{{_ONE}}})",
                "sequences": f"sum({runtime.RUNNING}{{{_ONE}}})",
                "waiting": f"sum({runtime.WAITING}{{{_ONE}}})",
            },
        ),
        Panel(
            "Tokens a second",
            "short",
            {
                "prompt": rate(runtime.PROMPT_TOKENS, WINDOW, where=_ONE),
                "of these, spared": rate(runtime.PREFIX_TOKENS, WINDOW, where=_ONE),
                "generated": rate(runtime.GENERATED_TOKENS, WINDOW, where=_ONE),
            },
        ),
        Panel(
            "KV cache, cells",
            "short",
            {
                "used": f"sum({runtime.KV_CELLS_USED}{{{_ONE}}})",
                "may go": f"sum({runtime.KV_CELLS_EVICTABLE}{{{_ONE}}})",
                "all": f"sum({runtime.KV_CELLS}{{{_ONE}}})",
            },
        ),
        Panel(
            "Guessed tokens that came true",
            "percentunit",
            {
                _MODEL: share(
                    rate(runtime.ACCEPTED_TOKENS, WINDOW, where=_ONE),
                    rate(runtime.DRAFTED_TOKENS, WINDOW, where=_ONE),
                )
            },
        ),
        Panel(
            "Sequences that gave way, a second",
            "short",
            {_MODEL: rate(runtime.PREEMPTIONS, WINDOW, where=_ONE)},
        ),
        Panel(
            "Time in the engine",
            "percentunit",
            {
                "step loop": rate(runtime.STEP_SECONDS, WINDOW, where=_ONE, by="pod"),
                "engine": rate(runtime.ENGINE_SECONDS, WINDOW, where=_ONE, by="pod"),
            },
        ),
        Panel("Steps a second", "short", {_MODEL: rate(runtime.STEPS, WINDOW, where=_ONE)}),
        Panel(
            "CPUs",
            "short",
            {
                "engine {{pod}}": rate(f"{runtime.ENGINE_PROCESS}_cpu_seconds", WINDOW, where=_ONE, by="pod"),
                "API {{pod}}": rate("process_cpu_seconds", WINDOW, where=_ONE, by="pod"),
            },
        ),
        Panel(
            "Memory",
            "bytes",
            {
                "engine {{pod}}": f"{runtime.ENGINE_PROCESS}_resident_memory_bytes{{{_ONE}}}",
                "API {{pod}}": f"process_resident_memory_bytes{{{_ONE}}}",
                "{{kind}} {{pod}}": f"{runtime.MEMORY}{{{_ONE}}}",
            },
        ),
        Panel(
            "In memory",
            "short",
            {"{{pod}}": f"{runtime.MODEL_LOADED}{{{_ONE}}}"},
        ),
        Panel("Canaries as expected", "short", {"{{canary}} {{pod}}": f"{runtime.CANARY_PASSED}{{{_ONE}}}"}),
        Panel("Canaries' answers", "s", {"{{canary}} {{pod}}": f"{runtime.CANARY_SECONDS}{{{_ONE}}}"}),
        Panel(
            "Since canaries were asked",
            "s",
            {"{{canary}} {{pod}}": f"time() - {runtime.CANARY_TIME}{{{_ONE}}}"},
        ),
    ),
)

OPERATOR: Final = Dashboard(
    "slm-operator",
    "Small language models: operator",
    (),
    (
        Panel("Who acts", "short", {"{{pod}}": operator.LEADER}, "stat"),
        Panel(
            "SLMDeployments that wait",
            "short",
            {"to act": operator.QUEUE_DEPTH_ACT, "to report": operator.QUEUE_DEPTH_REPORT},
        ),
        Panel("The first has waited", "s", {"{{pod}}": operator.QUEUE_OLDEST}),
        Panel("Turns a second", "short", {"{{result}}": rate(operator.RECONCILES, WINDOW, by="result")}),
        Panel(
            "Requests to the API server",
            "reqps",
            {
                "{{method}} {{resource}} {{code}}": "sum by (method, resource, code) "
                f"(rate({operator.API_REQUEST_SECONDS}_count[{WINDOW}]))"
            },
        ),
        Panel(
            "Their time, 95 %",
            "s",
            {
                "{{method}} {{resource}}": quantile(
                    0.95, operator.API_REQUEST_SECONDS, WINDOW, by="method, resource"
                )
            },
        ),
        Panel("Events a second", "short", {"{{kind}}": rate(operator.WATCH_EVENTS, WINDOW, by="kind")}),
        Panel(
            "Event loop",
            "s",
            {"late {{pod}}": operator.LOOP_LAG, "held {{pod}}": operator.LOOP_BLOCK},
        ),
        Panel("Since all was listed", "s", {"{{pod}}": operator.LIST_AGE}),
        Panel(
            "CPUs",
            "short",
            {
                "{{pod}}": f"rate(process_cpu_seconds_total[{WINDOW}]) and on (namespace, job, pod) {operator.LEADER}"
            },
        ),
        Panel(
            "Memory",
            "bytes",
            {"{{pod}}": f"process_resident_memory_bytes and on (namespace, job, pod) {operator.LEADER}"},
        ),
        Panel(
            "Conditions",
            "short",
            {"{{type}}": f"sum by (type) ({operator.CONDITION})"},
        ),
    ),
)
ALL: Final = {"fleet": FLEET, "model": MODEL, "operator": OPERATOR}
"""By the name of the file."""


def queries() -> Iterator[tuple[str, str]]:
    """Place and text of every query, Grafana's variables standing for everything."""
    for name, dashboard in ALL.items():
        for panel in dashboard.panels:
            for legend, expr in panel.queries.items():
                text = expr.replace("$namespace", ".*").replace("$model", ".*")
                yield f"{name}: {panel.title}: {legend}", text


def text(dashboard: Dashboard) -> str:
    return json.dumps(dashboard.document(), indent=1) + "\n"
