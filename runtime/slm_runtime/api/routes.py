"""Everything that the API port serves."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from slm_runtime.api import infill, llama_server
from slm_runtime.api.anthropic import messages
from slm_runtime.api.anthropic.requests import MessagesRequest
from slm_runtime.api.document import Operation, openapi
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.routing import Router
from slm_runtime.api.ollama import RELEASE, catalogue, embed, generate
from slm_runtime.api.ollama import chat as ollama_chat
from slm_runtime.api.openai import chat, completions, embeddings, fields, models, responses, responses_stored
from slm_runtime.api.ranking import rerank, score
from slm_runtime.api.serving import Serving
from slm_runtime.metrics import CONTENT_TYPE
from slm_runtime.version import VERSION

Endpoint = Callable[[Serving, Exchange], Awaitable[None]]


async def _root(_: Serving, exchange: Exchange) -> None:
    # Ollama's clients look for exactly this.
    await exchange.respond(200, b"Ollama is running", [(b"content-type", b"text/plain; charset=utf-8")])


async def _version(_: Serving, exchange: Exchange) -> None:
    await exchange.respond_json({"version": RELEASE, "runtime": VERSION})


async def _metrics(serving: Serving, exchange: Exchange) -> None:
    await exchange.respond(200, serving.metrics.exposition(), [(b"content-type", CONTENT_TYPE)])


async def _health(serving: Serving, exchange: Exchange) -> None:
    problem = serving.unready()
    if problem is None:
        await exchange.respond_json({"status": "ok"})
    else:
        await exchange.respond_json({"status": "unavailable", "reason": problem}, 503)


async def _openapi(serving: Serving, exchange: Exchange) -> None:
    strict = serving.config.unknown_fields == "Refuse"
    await exchange.respond_json(openapi(OPERATIONS, keys=serving.keys is not None, strict=strict))


ROUTES: Final[list[tuple[Operation, Endpoint]]] = [
    (Operation("GET", "/", "That something runs here; what Ollama's clients ask first."), _root),
    (Operation("GET", "/openapi.json", "This document."), _openapi),
    (Operation("GET", "/health", "Whether requests are answered."), _health),
    (Operation("GET", "/v1/models", "The model that is served, as a list."), models.index),
    (Operation("GET", "/v1/models/{rest}", "The model that is served."), models.show),
    (
        Operation(
            "POST",
            "/v1/chat/completions",
            "A conversation's next turn.",
            chat.ChatRequest,
            fields.without_effect(fields.CHAT),
        ),
        chat.create,
    ),
    (
        Operation(
            "POST",
            "/v1/completions",
            "A text goes on.",
            completions.CompletionRequest,
            fields.without_effect(fields.COMPLETION),
        ),
        completions.create,
    ),
    (
        Operation(
            "POST",
            "/v1/responses",
            "A response.",
            responses.ResponseRequest,
            fields.without_effect(fields.RESPONSE),
        ),
        responses.create,
    ),
    (
        Operation("GET", "/v1/responses/{rest}", "A stored response, or its input_items."),
        responses_stored.show,
    ),
    (Operation("DELETE", "/v1/responses/{rest}", "Forgets a stored response."), responses_stored.delete),
    (
        Operation(
            "POST",
            "/v1/embeddings",
            "A vector for each text.",
            embeddings.EmbeddingRequest,
            fields.without_effect(fields.EMBEDDING),
        ),
        embeddings.create,
    ),
    (Operation("POST", "/v1/messages", "A conversation's next turn.", MessagesRequest), messages.create),
    (
        Operation("POST", "/v1/messages/count_tokens", "How many tokens such a prompt has.", MessagesRequest),
        messages.count_tokens,
    ),
    (
        Operation("POST", "/tokenize", "The tokens of a text.", llama_server.TokenizeRequest),
        llama_server.tokenize,
    ),
    (
        Operation("POST", "/detokenize", "The text of tokens.", llama_server.DetokenizeRequest),
        llama_server.detokenize,
    ),
    (
        Operation("POST", "/infill", "What stands in a gap of a text.", infill.InfillRequest),
        infill.create,
    ),
    (Operation("GET", "/props", "What is served, as llama-server tells it."), llama_server.props),
    *(
        (
            Operation("POST", path, "Documents, the one first that answers best.", rerank.RerankRequest),
            rerank.create,
        )
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    ),
    *(
        (Operation("POST", path, "How well pairs of texts fit.", score.ScoreRequest), score.create)
        for path in ("/v1/score", "/score")
    ),
    (
        Operation("GET", "/api/version", "The release of Ollama whose API this is, and the runtime's own."),
        _version,
    ),
    (Operation("GET", "/api/health", "Whether requests are answered."), _health),
    (Operation("GET", "/api/metrics", "What Prometheus reads on the operations port."), _metrics),
    (
        Operation("POST", "/api/chat", "A conversation's next turn.", ollama_chat.OllamaChatRequest),
        ollama_chat.create,
    ),
    (Operation("POST", "/api/generate", "An answer to a prompt.", generate.Generate), generate.create),
    (Operation("POST", "/api/embed", "A vector for each text.", embed.Embed), embed.create),
    (Operation("POST", "/api/embeddings", "A vector for a text.", embed.LegacyEmbed), embed.create_legacy),
    (Operation("GET", "/api/tags", "The model that is served, as a list."), catalogue.tags),
    (Operation("GET", "/api/ps", "The model that is loaded, as a list."), catalogue.ps),
    (Operation("POST", "/api/show", "What the model is.", catalogue.Named), catalogue.show),
    (
        Operation("POST", "/api/pull", "Succeeds for the model that is served.", catalogue.Named),
        catalogue.pull,
    ),
    (
        Operation("POST", "/api/create", "Declined: what is served is the deployment's to say."),
        catalogue.decline,
    ),
    (
        Operation("POST", "/api/copy", "Declined: what is served is the deployment's to say."),
        catalogue.decline,
    ),
    (
        Operation("POST", "/api/push", "Declined: what is served is the deployment's to say."),
        catalogue.decline,
    ),
    (
        Operation("DELETE", "/api/delete", "Declined: what is served is the deployment's to say."),
        catalogue.decline,
    ),
    (Operation("HEAD", "/api/blobs/{rest}", "404: what is sent would be declined."), catalogue.blob),
    (
        Operation("POST", "/api/blobs/{rest}", "Declined: what is served is the deployment's to say."),
        catalogue.decline,
    ),
]
OPERATIONS: Final = [operation for operation, _ in ROUTES]


def routes(serving: Serving) -> Router:
    router = Router()
    for operation, endpoint in ROUTES:
        router.add(operation.method, operation.path, partial(endpoint, serving))
    return router
