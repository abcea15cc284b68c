"""Everything that the API port serves."""

from collections.abc import Awaitable, Callable
from functools import partial

from slm_runtime.api.http import Exchange
from slm_runtime.api.openai import chat, completions, embeddings, models
from slm_runtime.api.routing import Router
from slm_runtime.api.serving import Serving
from slm_runtime.version import VERSION

Endpoint = Callable[[Serving, Exchange], Awaitable[None]]


def routes(serving: Serving) -> Router:
    router = Router()

    def add(method: str, path: str, endpoint: Endpoint) -> None:
        router.add(method, path, partial(endpoint, serving))

    add("GET", "/", _root)
    add("GET", "/api/version", _version)
    add("GET", "/api/health", _health)
    add("GET", "/v1/models", models.index)
    add("GET", "/v1/models/{rest}", models.show)
    add("POST", "/v1/chat/completions", chat.create)
    add("POST", "/v1/completions", completions.create)
    add("POST", "/v1/embeddings", embeddings.create)
    return router


async def _root(_: Serving, exchange: Exchange) -> None:
    # Ollama's clients look for exactly this.
    await exchange.respond(200, b"Ollama is running", [(b"content-type", b"text/plain; charset=utf-8")])


async def _version(_: Serving, exchange: Exchange) -> None:
    await exchange.respond_json({"version": VERSION})


async def _health(serving: Serving, exchange: Exchange) -> None:
    problem = serving.unready()
    if problem is None:
        await exchange.respond_json({"status": "ok"})
    else:
        await exchange.respond_json({"status": "unavailable", "reason": problem}, 503)
