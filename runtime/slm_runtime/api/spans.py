"""Spans of requests, sent by OTLP under the names of OpenTelemetry's conventions for generative AI.

A span is made when its request has been answered, of what the audit line is made of: nothing is measured for it, and where
nobody asks for spans, OpenTelemetry isn't even imported.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.tracecontext import parse_parent
from slm_runtime.errors import ConfigError
from slm_runtime.version import VERSION

PATH: Final = "/v1/traces"
"""Where collectors listen, below their address."""
_OPERATIONS: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
_PHASES: Final = ("queue", "prefill", "decode")
_NANO: Final = 1_000_000_000


class Spans(Protocol):
    def tell(self, exchange: Exchange, seconds: float) -> None:
        """A request has been answered, so long after it came."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class OtlpSpans:
    """In batches, by a thread of its own; what a collector doesn't take is dropped."""

    def __init__(self, endpoint: str, service: str) -> None:
        """`endpoint`: the collector's address, `service`: the name of what is served.

        Raises
        ------
        ConfigError
            This image has no OpenTelemetry.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigError(
                f"Spans are to be sent, and this image can't: {error}.",
                "Use an image with the extra `tracing`, or leave out spec.observability.tracing.",
            ) from error
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create({"service.name": service, "service.version": VERSION})
        self._trace = trace
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/").removesuffix(PATH) + PATH)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("slm-runtime", VERSION)

    def tell(self, exchange: Exchange, seconds: float) -> None:
        trace, end = self._trace, time.time_ns()
        operation, model = _OPERATIONS.get(exchange.route), exchange.outcome.get("model")
        request = self._tracer.start_span(
            f"{operation} {model}" if operation and model else f"{exchange.method} {exchange.route}",
            context=self._context(exchange),
            kind=trace.SpanKind.SERVER,
            start_time=end - int(seconds * _NANO),
            attributes=_attributes(exchange, operation),
        )
        if exchange.status >= 500 or "error" in exchange.outcome:
            request.set_status(trace.StatusCode.ERROR)
        within, until = trace.set_span_in_context(request), end
        for phase in reversed(_PHASES):
            begun = until - int(exchange.outcome.get(f"{phase}Seconds", 0.0) * _NANO)
            if begun < until:
                self._tracer.start_span(phase, context=within, start_time=begun).end(until)
            until = begun
        request.end(end)

    def _context(self, exchange: Exchange) -> Any:
        parent = parse_parent(exchange.header(b"traceparent"))
        if parent is None:
            return None
        trace = self._trace
        caller = trace.SpanContext(
            int(parent.trace, 16),
            int(parent.span, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(parent.sampled),
        )
        return trace.set_span_in_context(trace.NonRecordingSpan(caller))

    def close(self) -> None:
        self._provider.shutdown()


def _attributes(exchange: Exchange, operation: str | None) -> dict[str, Any]:
    outcome = exchange.outcome
    found = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "slm" if operation else None,
        "gen_ai.request.model": outcome.get("model"),
        "gen_ai.response.model": outcome.get("model"),
        "gen_ai.usage.input_tokens": outcome.get("promptTokens"),
        "gen_ai.usage.output_tokens": outcome.get("completionTokens"),
        "gen_ai.response.finish_reasons": [outcome["finish"]] if "finish" in outcome else None,
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "error.type": str(exchange.status) if exchange.status >= 400 else None,
        "slm.request.id": exchange.id,
    }
    return {name: value for name, value in found.items() if value is not None}
