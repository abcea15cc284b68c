"""GET /v1/models and /v1/models/{id}."""

from typing import Any

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.serving import Serving


async def index(serving: Serving, exchange: Exchange) -> None:
    await exchange.respond_json({"object": "list", "data": [_model(serving)]})


async def show(serving: Serving, exchange: Exchange) -> None:
    serving.require_model(exchange.path.removeprefix("/v1/models/"))
    await exchange.respond_json(_model(serving))


def _model(serving: Serving) -> dict[str, Any]:
    return {
        "id": serving.name,
        "object": "model",
        "created": serving.created,
        "owned_by": "slm-operator",
        # vLLM's, which its benchmark reads.
        "root": serving.name,
        "parent": None,
        # Also vLLM's: clients size their prompts by it.
        **({} if serving.chat is None else {"max_model_len": serving.engine.info.context_length}),
    }
