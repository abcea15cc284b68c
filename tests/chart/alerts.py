"""The chart's alerts, made from the metrics' names: `charts/slm-operator/files/rules.yaml`."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml

from slm_contract import metrics as runtime
from slm_operator import metrics as operator
from tests.chart.queries import condition, errors, quantile, total

FIRST_TOKEN: Final = "FIRST_TOKEN_SECONDS"
QUEUE: Final = "QUEUE_SECONDS"
"""What the chart's template writes its values in place of."""
_OF_DEPLOYMENT: Final = "on (deployment_namespace, deployment)"
_MODEL: Final = "{{ $labels.namespace }}/{{ $labels.job }}"
_DEPLOYMENT: Final = "{{ $labels.deployment_namespace }}/{{ $labels.deployment }}"
_WHY: Final = "`kubectl describe slmdeployment` says why."


@dataclass(frozen=True)
class Alert:
    name: str
    expr: str
    lasts: str
    """How long it must be so."""
    severity: Literal["critical", "warning", "info"]
    summary: str
    description: str

    def document(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.description},
        }


MODELS: Final = (
    Alert(
        "SLMNothingReady",
        f"{condition('Ready')} == 0 and {_OF_DEPLOYMENT} {condition('Available')} == 0",
        "10m",
        "critical",
        f"No pod of {_DEPLOYMENT} serves",
        f"For ten minutes no pod has been ready, though some are asked for. {_WHY}",
    ),
    Alert(
        "SLMStalled",
        f"{condition('Stalled')} == 1",
        "5m",
        "warning",
        f"{_DEPLOYMENT} waits for somebody to change something",
        f"Nothing gets better by itself. {_WHY}",
    ),
    Alert(
        "SLMFetchStuck",
        f"{condition('ModelReady')} == 0 and {_OF_DEPLOYMENT} {condition('Available')} == 0",
        "30m",
        "warning",
        f"The model of {_DEPLOYMENT} hasn't come in half an hour",
        f"It is still being fetched, or can't be: the condition ModelReady tells. {_WHY}",
    ),
    Alert(
        "SLMDrifting",
        f"{condition('Drifting')} == 1",
        "5m",
        "warning",
        f"{_DEPLOYMENT} doesn't answer as it did",
        "The condition Drifting names the canary that fails, and what of that which answers is another.",
    ),
    Alert(
        "SLMSourceDrifted",
        f"{condition('SourceDrifted')} == 1",
        "5m",
        "info",
        f"The source of {_DEPLOYMENT} stands for other bytes than those that are served",
        "The condition SourceDrifted says which; refreshPolicy: OnChange follows.",
    ),
    Alert(
        "SLMNotScraped",
        f"{condition('MonitoringReady')} == 0",
        "15m",
        "warning",
        f"Nobody scrapes the pods of {_DEPLOYMENT}",
        "The condition MonitoringReady says what its ServiceMonitor lacks.",
    ),
)
PODS: Final = (
    Alert(
        "SLMQueueSlow",
        f"{quantile(0.95, runtime.QUEUE_SECONDS, '10m')} > {QUEUE}",
        "10m",
        "warning",
        f"Requests to {_MODEL} wait {{{{ $value | humanizeDuration }}}} for their turn",
        "Of 100 requests five wait longer. More replicas help, or more of `spec.runtime.parallel` where memory allows.",
    ),
    Alert(
        "SLMFirstTokenSlow",
        f"{quantile(0.95, runtime.TIME_TO_FIRST_TOKEN, '10m')} > {FIRST_TOKEN}",
        "10m",
        "warning",
        f"First tokens of {_MODEL} take {{{{ $value | humanizeDuration }}}}",
        "Of 100 requests five wait longer. SLMQueueSlow has the queue's share of it, the rest is the prompt.",
    ),
    Alert(
        "SLMErrors",
        f"{errors('5m')} > 0.05",
        "5m",
        "critical",
        f"{_MODEL} fails {{{{ $value | humanizePercentage }}}} of its requests",
        "Answers with a code of 500 and more; the pods' audit log has each with its reason.",
    ),
    Alert(
        "SLMEngineRestarts",
        f"sum by (namespace, job, pod) (increase({runtime.ENGINE_RESTARTS}_total[30m])) > 1",
        "0m",
        "warning",
        f"The engine of {_MODEL} dies again and again",
        "It died at least twice in half an hour in the pod {{ $labels.pod }}, whose log says of what.",
    ),
    Alert(
        "SLMCanaryFailing",
        f"min by (namespace, job, canary) ({runtime.CANARY_PASSED}) == 0",
        "15m",
        "warning",
        f"The canary {{{{ $labels.canary }}}} of {_MODEL} isn't answered as expected",
        "`/report` of the pods, on port 8081, has the answer.",
    ),
)
OPERATOR: Final = (
    Alert(
        "SLMOperatorNotActing",
        f"sum by (namespace, job) ({operator.LEADER}) == 0",
        "10m",
        "critical",
        "No operator acts",
        "All of its pods wait: serving models go on, and nothing changes.",
    ),
    Alert(
        "SLMOperatorBehind",
        f"{total(operator.QUEUE_OLDEST, by='namespace, job, pod')} > 300",
        "10m",
        "warning",
        "SLMDeployments wait for the operator {{ $value | humanizeDuration }}",
        "The API server is slow or refuses, or the operator lacks CPU: the operator's dashboard tells which.",
    ),
)
GROUPS: Final = {"slm-models": MODELS, "slm-pods": PODS, "slm-operator": OPERATOR}


def rules() -> dict[str, Any]:
    """The `spec` of a PrometheusRule, which is also Prometheus' own file of rules."""
    return {
        "groups": [
            {"name": name, "rules": [each.document() for each in alerts]} for name, alerts in GROUPS.items()
        ]
    }


def rules_text() -> str:
    text: str = yaml.safe_dump(rules(), sort_keys=False, width=10_000)
    return f"# Made by `make generate` from the metrics' names.\n{text}"
