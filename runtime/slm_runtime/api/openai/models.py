"""GET /v1/models and /v1/models/{id}."""

from typing import Any

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.serving import Served, Serving


async def index(serving: Serving, exchange: Exchange) -> None:
    await exchange.respond_json(
        {"object": "list", "data": [_model(serving, each) for each in serving.served]}
    )


async def show(serving: Serving, exchange: Exchange) -> None:
    served = serving.require_model(exchange.path.removeprefix("/v1/models/"))
    await exchange.respond_json(_model(serving, served))


def _model(serving: Serving, served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": serving.created,
        "owned_by": "slm-operator",
        # vLLM's, which its benchmark reads.
        "root": served.name,
        "parent": serving.name if served.adapter else None,
        # Also vLLM's: clients size their prompts by it.
        **({} if serving.chat is None else {"max_model_len": serving.engine.info.context_length}),
    }
