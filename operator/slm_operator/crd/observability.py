"""`spec.observability`: what is measured, by whom, and under which names."""

from typing import Annotated

from pydantic import ConfigDict, Field

from slm_contract.aliases import Dialect
from slm_operator.crd.base import DNS_LABEL, ApiModel, Duration, pattern, rule, rules


class ServiceMonitor(ApiModel):
    enabled: bool = False
    """Whether the Prometheus Operator shall scrape the runtime."""
    interval: Duration = "30s"
    """Time between two scrapes."""
    labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(default_factory=dict, max_length=16)
    ]
    """Labels that Prometheus selects ServiceMonitors by, over those of the operator's configuration."""


class MetricNames(ApiModel):
    aliases: Annotated[
        tuple[Dialect, ...], Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Other servers whose names the runtime's metrics have beside their own, for routers and dashboards that look for
    these."""


class Expectation(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.contains), has(self.regex), has(self.jsonSchema), has(self.sameAsFirst)]"
                ".exists_one(each, each)",
                "write one of contains, regex, jsonSchema and sameAsFirst",
            )
        )
    )

    contains: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Text that the answer has in it."""
    regex: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Pattern, as Python writes them, that is found in the answer."""
    json_schema: Annotated[str, Field(min_length=2, max_length=2048)] | None = None
    """A JSON schema, as JSON text: the answer is JSON that matches it."""
    same_as_first: (
        Annotated[bool, Field(json_schema_extra=rules(rule("self", "write true, or another expectation")))]
        | None
    ) = None
    """The answer is the very first one that was recorded; `status.canaries` keeps it over changes of model, quantization,
    engine and hardware. Another name or prompt begins anew."""


class Canary(ApiModel):
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            json_schema_extra=pattern(DNS_LABEL, "write lowercase letters, digits and '-'"),
        ),
    ]
    """Names it in metrics and in the status."""
    prompt: Annotated[str, Field(min_length=1, max_length=2048)]
    """What the model is asked, as a user's message; it answers with its likeliest tokens."""
    expect: Expectation
    """What the answer has to be like."""
    every: (
        Annotated[
            str,
            Field(
                max_length=32,
                json_schema_extra=rules(
                    rule(
                        "self.matches('^([0-9]+(h|m|s))+$') && duration(self) >= duration('10s')",
                        "write a duration of 10s or more, such as 5m or 1h",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """Time between two times that it is asked. Absent: 10m."""
    max_tokens: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Of the answer; what is longer is cut off. Absent: 64."""


class Tracing(ApiModel):
    endpoint: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            json_schema_extra=pattern(
                r"^https?://[^/\s]+(/\S*)?$", "write the collector's address: http://host:4318, or https://"
            ),
        ),
    ]
    """Collector that is sent a span for each request, by OTLP over HTTP; `/v1/traces` is put to it."""


class Observability(ApiModel):
    service_monitor: ServiceMonitor = ServiceMonitor()
    """A ServiceMonitor for the runtime's metrics."""
    metrics: MetricNames | None = None
    """How metrics are named; absent: by their own names alone."""
    tracing: Tracing | None = None
    """Where spans of requests are sent; absent: nowhere."""
    canary: Annotated[
        tuple[Canary, ...],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Questions that each pod asks its model now and then, when no client waits; an answer that isn't as expected makes the
    condition Drifting true."""
