"""Traces: whose request it is, and spans for who asks for them."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from typing_extensions import override

from slm_runtime.api.http.tracecontext import TraceParent, parse_parent
from slm_runtime.api.spans import OtlpSpans
from tests.unit.runtime_api.scripted import MODEL, running

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceParent(TRACE, SPAN, True)),
        (f" 00-{TRACE}-{SPAN}-00 ", TraceParent(TRACE, SPAN, False)),
        (f"01-{TRACE}-{SPAN}-03-more", TraceParent(TRACE, SPAN, True)),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_a_trace_parent_is_read_as_the_standard_has_it(header: str, parent: TraceParent | None) -> None:
    assert parse_parent(header.encode()) == parent
    assert parse_parent(None) is None


async def test_the_audit_line_has_the_trace_and_the_answer_its_own_name(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="slm.audit"):
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        answer = await http.post("/v1/chat/completions", json=ASK, headers=headers)
        await http.post("/v1/chat/completions", json=ASK)
    traced, plain = (record.fields for record in caplog.records if record.name == "slm.audit")  # type: ignore[attr-defined]
    assert traced["trace"] == TRACE
    assert traced["request"] == answer.headers["x-request-id"]
    assert (traced["queueSeconds"], traced["prefillSeconds"], traced["decodeSeconds"]) == (0.0, 0.1, 0.2)
    assert "trace" not in plain


def test_who_asks_for_no_spans_pays_nothing_for_them() -> None:
    code = "import sys, slm_runtime.life, slm_runtime.api.spans; print([m for m in sys.modules if 'telemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Collector:
    """Takes spans as OTLP has them."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[Any] = []
        self.service = ""
        collector = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                taken = ExportTraceServiceRequest.FromString(body)
                for of_resource in taken.resource_spans:
                    values = {each.key: each.value.string_value for each in of_resource.resource.attributes}
                    collector.service = values["service.name"]
                    for of_scope in of_resource.scope_spans:
                        collector.spans.extend(of_scope.spans)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            @override
            def log_message(self, format: str, *args: object) -> None:
                return

        self._web = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self.address = f"http://127.0.0.1:{self._web.server_port}"
        self._thread = threading.Thread(target=self._web.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._web.shutdown()
        self._thread.join()
        self._web.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    it = Collector()
    yield it
    it.close()


async def test_a_span_for_each_request_and_one_for_each_of_its_phases(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with running() as api:
        api.serving.spans = spans = OtlpSpans(collector.address, MODEL)
        async with httpx.AsyncClient(base_url=api.base, timeout=10, trust_env=False) as http:
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            answer = await http.post("/v1/chat/completions", json=ASK, headers=headers)
            unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
            await http.post("/v1/chat/completions", json=ASK, headers=unsampled)
            await http.post("/v1/chat/completions", json={**ASK, "model": "other"})
        spans.close()
    assert collector.service == MODEL
    found = {each.name: each for each in collector.spans}
    assert set(found) == {f"chat {MODEL}", "prefill", "decode", "POST /v1/chat/completions"}
    request, refused = found[f"chat {MODEL}"], found["POST /v1/chat/completions"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
    assert refused.trace_id.hex() != TRACE
    attributes = {each.key: each.value for each in request.attributes}
    assert attributes["gen_ai.operation.name"].string_value == "chat"
    assert attributes["gen_ai.request.model"].string_value == MODEL
    assert attributes["gen_ai.usage.input_tokens"].int_value == 7
    assert attributes["gen_ai.usage.output_tokens"].int_value == 4
    assert attributes["slm.request.id"].string_value == answer.headers["x-request-id"]
    errors = {each.key: each.value.string_value for each in refused.attributes}
    assert errors["error.type"] == "404"
    prefill, decode = found["prefill"], found["decode"]
    assert {prefill.parent_span_id, decode.parent_span_id} == {request.span_id}
    assert prefill.end_time_unix_nano == decode.start_time_unix_nano
    assert decode.end_time_unix_nano == request.end_time_unix_nano
    assert decode.end_time_unix_nano - decode.start_time_unix_nano == 200_000_000
