"""The API port's application: key first, then route, then answer; one audit line for each request."""

import asyncio
import logging
import time

from slm_runtime.api.answering import api_error
from slm_runtime.api.http.auth import ANONYMOUS, authorize, is_keyless
from slm_runtime.api.http.bodies import Bodies
from slm_runtime.api.http.cors import Cors
from slm_runtime.api.http.exchange import Asgi, Disconnected, Exchange, Handler, Receive, Scope, Send
from slm_runtime.api.http.problems import ApiError, ServerFault
from slm_runtime.api.http.proxies import Proxies
from slm_runtime.api.http.routing import Router
from slm_runtime.api.http.tracecontext import parse_parent
from slm_runtime.api.serving import Serving
from slm_runtime.engine.client import EngineError

_audit = logging.getLogger("slm.audit")
_log = logging.getLogger("slm.api")


def api_app(serving: Serving, router: Router) -> Asgi:
    cors = Cors(serving.config.allowed_origins or ())
    bodies = Bodies()
    proxies = Proxies(serving.config.trusted_proxies or ())

    async def answer(exchange: Exchange) -> None:
        exchange.common_headers = cors.headers(exchange)
        exchange.come_through(proxies)
        if cors.allows(exchange):
            exchange.route, methods = router.methods(exchange.path)
            await exchange.respond_nothing(cors.preflight(exchange, methods))
            return
        if not is_keyless(exchange.method, exchange.raw_path):
            if serving.keys is not None:
                exchange.key_name = authorize(
                    exchange.header(b"authorization"), exchange.header(b"x-api-key"), serving.keys
                )
            serving.asked = time.monotonic()
        if exchange.method == "OPTIONS":
            exchange.route, methods = router.methods(exchange.path)
            await exchange.respond_nothing([(b"allow", ", ".join(methods).encode())])
            return
        exchange.route, handler = router.find(exchange.method, exchange.path)
        await handler(exchange)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the API speaks HTTP, not {scope['type']}")
        exchange = Exchange(scope, receive, send, bodies, leaving=lambda: serving.draining)
        begun = time.monotonic()
        try:
            await _answer_errors(exchange, answer)
        finally:
            await exchange.held.aclose()
            serving.metrics.count(exchange.route, exchange.status)
            seconds = time.monotonic() - begun
            if exchange.key_name != ANONYMOUS or exchange.status >= 400 or serving.keys is None:
                _write_audit(exchange, seconds)
                if serving.spans is not None:
                    serving.spans.tell(exchange, seconds)

    return app


async def _answer_errors(exchange: Exchange, answer: Handler) -> None:
    try:
        await answer(exchange)
    except Disconnected:
        exchange.outcome["finish"] = "disconnected"
    except (ApiError, EngineError) as raised:
        error = api_error(raised, {}) if isinstance(raised, EngineError) else raised
        exchange.outcome["error"] = error.message
        await exchange.respond_error(error)
    except asyncio.CancelledError:
        exchange.outcome["finish"] = "cancelled"
        raise
    except Exception:
        _log.exception("A handler failed", extra={"fields": {"route": exchange.route}})
        if exchange.started:
            raise
        fault = ServerFault("The server failed to answer; its log has the details.")
        exchange.outcome["error"] = fault.message
        await exchange.respond_error(fault)


def _write_audit(exchange: Exchange, seconds: float) -> None:
    """Who asked for what, when, how much, and what came of it; never what was said."""
    parent = parse_parent(exchange.header(b"traceparent"))
    fields = {
        "request": exchange.id,
        **({} if parent is None else {"trace": parent.trace}),
        "key": exchange.key_name,
        "client": exchange.client,
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "bytesIn": exchange.bytes_in,
        "bytesOut": exchange.bytes_out,
        "seconds": round(seconds, 4),
        **exchange.outcome,
    }
    _audit.info("request", extra={"fields": fields})
