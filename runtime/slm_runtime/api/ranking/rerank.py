"""POST /v1/rerank, /v2/rerank, /rerank: documents sorted by how well they answer a query.

The answer to `documents` is Jina's and Cohere's at once; who sends `texts` speaks Text Embeddings Inference's protocol.
"""

import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.ranking.pairs import parse, probability, rank
from slm_runtime.api.serving import Serving


class Text(msgspec.Struct):
    """A document as Jina's and Cohere's clients may write one."""

    text: str


class RerankRequest(msgspec.Struct, kw_only=True):
    """What else these protocols' clients send has no effect."""

    query: str | Text
    documents: list[str | Text] | None = None
    texts: list[str] | None = None
    model: str | None = None
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None
    raw_scores: bool | None = None


async def create(serving: Serving, exchange: Exchange) -> None:
    wanted = parse(await exchange.json(), RerankRequest)
    param = "documents" if wanted.texts is None else "texts"
    documents = [_text(each) for each in wanted.documents or wanted.texts or []]
    ranked = await rank(
        serving,
        exchange,
        [_text(wanted.query)],
        documents,
        model=wanted.model,
        # Jina and Cohere cut what is too long.
        truncate=wanted.truncate is not False,
        param=param,
    )
    scores = ranked.scores if wanted.raw_scores else list(map(probability, ranked.scores))
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: wanted.top_n]
    if wanted.texts is not None:
        shown = {index: {"text": documents[index]} if wanted.return_text else {} for index in best}
        await exchange.respond_json(
            [{"index": index, "score": scores[index], **shown[index]} for index in best]
        )
        return
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in best]
    if wanted.return_documents:
        for result in results:
            result["document"] = {"text": documents[result["index"]]}
    tokens = ranked.prompt_tokens
    await exchange.respond_json(
        {
            "id": f"rerank-{secrets.token_hex(12)}",
            "object": "list",
            "model": serving.name,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }
    )


def _text(given: str | Text) -> str:
    return given if isinstance(given, str) else given.text
