"""Everything that the API port serves."""

from collections.abc import Awaitable, Callable
from functools import partial

from slm_runtime.api.http import Exchange
from slm_runtime.api.ollama import catalogue, embed, generate
from slm_runtime.api.ollama import chat as ollama_chat
from slm_runtime.api.openai import chat, completions, embeddings, models
from slm_runtime.api.routing import Router
from slm_runtime.api.serving import Serving
from slm_runtime.metrics import CONTENT_TYPE
from slm_runtime.version import VERSION

Endpoint = Callable[[Serving, Exchange], Awaitable[None]]


def routes(serving: Serving) -> Router:
    router = Router()

    def add(method: str, path: str, endpoint: Endpoint) -> None:
        router.add(method, path, partial(endpoint, serving))

    add("GET", "/", _root)
    add("GET", "/api/version", _version)
    add("GET", "/api/health", _health)
    add("GET", "/api/metrics", _metrics)
    add("GET", "/v1/models", models.index)
    add("GET", "/v1/models/{rest}", models.show)
    add("POST", "/v1/chat/completions", chat.create)
    add("POST", "/v1/completions", completions.create)
    add("POST", "/v1/embeddings", embeddings.create)
    add("POST", "/api/chat", ollama_chat.create)
    add("POST", "/api/generate", generate.create)
    add("POST", "/api/embed", embed.create)
    add("POST", "/api/embeddings", embed.create_legacy)
    add("GET", "/api/tags", catalogue.tags)
    add("GET", "/api/ps", catalogue.ps)
    add("POST", "/api/show", catalogue.show)
    add("POST", "/api/pull", catalogue.pull)
    add("POST", "/api/create", catalogue.decline)
    add("POST", "/api/copy", catalogue.decline)
    add("POST", "/api/push", catalogue.decline)
    add("DELETE", "/api/delete", catalogue.decline)
    add("POST", "/api/blobs/{rest}", catalogue.decline)
    return router


async def _root(_: Serving, exchange: Exchange) -> None:
    # Ollama's clients look for exactly this.
    await exchange.respond(200, b"Ollama is running", [(b"content-type", b"text/plain; charset=utf-8")])


async def _version(_: Serving, exchange: Exchange) -> None:
    await exchange.respond_json({"version": VERSION})


async def _metrics(serving: Serving, exchange: Exchange) -> None:
    await exchange.respond(200, serving.metrics.exposition(), [(b"content-type", CONTENT_TYPE)])


async def _health(serving: Serving, exchange: Exchange) -> None:
    problem = serving.unready()
    if problem is None:
        await exchange.respond_json({"status": "ok"})
    else:
        await exchange.respond_json({"status": "unavailable", "reason": problem}, 503)
