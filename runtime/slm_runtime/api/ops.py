"""The operations port: probes, metrics, the report.

It runs on a thread and loop of its own, so that no request, however large, keeps a probe waiting. It needs no
key and tells nothing of what clients say.
"""

from typing import Final

from slm_contract import places
from slm_runtime.api.http.bodies import Bodies
from slm_runtime.api.http.exchange import Asgi, Exchange, Receive, Scope, Send
from slm_runtime.api.http.problems import ApiError, ServerFault
from slm_runtime.api.http.routing import Router
from slm_runtime.api.serving import Serving
from slm_runtime.metrics import CONTENT_TYPE

_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")


def ops_app(serving: Serving) -> Asgi:
    async def startup(exchange: Exchange) -> None:
        await _probe(exchange, serving.not_started())

    async def liveness(exchange: Exchange) -> None:
        await _probe(exchange, serving.not_alive())

    async def readiness(exchange: Exchange) -> None:
        await _probe(exchange, serving.unready())

    async def metrics(exchange: Exchange) -> None:
        await exchange.respond(200, serving.metrics.exposition(), [(b"content-type", CONTENT_TYPE)])

    async def report(exchange: Exchange) -> None:
        body = serving.report().to_json().encode()
        await exchange.respond(200, body, [(b"content-type", b"application/json")])

    bodies = Bodies()
    router = Router()
    router.add("GET", places.STARTUP_PATH, startup)
    router.add("GET", places.LIVENESS_PATH, liveness)
    router.add("GET", places.READINESS_PATH, readiness)
    router.add("GET", places.METRICS_PATH, metrics)
    router.add("GET", places.REPORT_PATH, report)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, bodies)
        try:
            _, handler = router.find(exchange.method, exchange.path)
            await handler(exchange)
        except ApiError as error:
            await exchange.respond_error(error)
        except Exception as error:
            if exchange.started:
                raise
            await exchange.respond_error(ServerFault(f"{type(error).__name__}: {error}"))

    return app


async def _probe(exchange: Exchange, problem: str | None) -> None:
    await exchange.respond(200 if problem is None else 503, (problem or "ok").encode() + b"\n", [_TEXT])
