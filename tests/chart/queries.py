"""Queries over the metrics of the runtime and the operator: what alerts and dashboards are made of."""

from typing import Final

from slm_contract import metrics as runtime
from slm_operator import metrics as operator

PODS: Final = "namespace, job"
"""Labels by which a model is told from others: the Prometheus Operator gives a ServiceMonitor's pods both."""


def rate(counter: str, window: str, *, where: str = "", by: str = PODS) -> str:
    """A counter's increase a second, summed up."""
    return f"sum by ({by}) (rate({counter}_total{_braces(where)}[{window}]))"


def quantile(share: float, histogram: str, window: str, *, where: str = "", by: str = PODS) -> str:
    """The value that a share of a histogram's observations doesn't exceed."""
    buckets = f"rate({histogram}_bucket{_braces(where)}[{window}])"
    return f"histogram_quantile({share}, sum by ({by}, le) ({buckets}))"


def total(gauge: str, *, where: str = "", by: str = PODS) -> str:
    return f"sum by ({by}) ({gauge}{_braces(where)})"


def share(part: str, whole: str) -> str:
    """Of two sums over the same labels; nothing where the whole is nothing."""
    return f"{part} / ({whole} > 0)"


def errors(window: str, *, where: str = "", by: str = PODS) -> str:
    """Share of requests that the server failed to answer; 0 where it answered all."""
    failed = f'code=~"5.."{"," + where if where else ""}'
    asked = rate(runtime.REQUESTS, window, where=where, by=by)
    return share(f"({rate(runtime.REQUESTS, window, where=failed, by=by)} or 0 * {asked})", asked)


def condition(kind: str) -> str:
    return f'{operator.CONDITION}{{type="{kind}"}}'


def _braces(where: str) -> str:
    return f"{{{where}}}" if where else ""
