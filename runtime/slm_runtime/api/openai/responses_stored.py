"""GET and DELETE /v1/responses/{id}, GET /v1/responses/{id}/input_items, where the deployment has responses stored."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest, NotFound
from slm_runtime.api.openai.fields import invalid
from slm_runtime.api.openai.stored import Item, Kept
from slm_runtime.api.serving import Serving

OFF: Final = "Nothing is stored here (spec.endpoint.storedResponses)"
_ITEMS: Final = "/input_items"


class Page(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    stream: Literal["true", "false"] = "false"


def previous(serving: Serving, exchange: Exchange, name: str) -> list[Item]:
    """The conversation up to an earlier response, its output included.

    Raises
    ------
    BadRequest
    """
    if not serving.stored.most:
        raise BadRequest(
            f"{OFF}: send the whole conversation in 'input', without 'previous_response_id'.",
            param="previous_response_id",
            code="unsupported_parameter",
        )
    kept = serving.stored.find(exchange.key_name, name)
    if kept is None:
        raise BadRequest(
            f"Previous response with id {name[:64]!r} not found: responses are kept for a while, and in one server's "
            "memory. Send the whole conversation in 'input'.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return kept.conversation


def resolved(serving: Serving, exchange: Exchange, items: list[Item]) -> list[Item]:
    """With the items themselves, where others are referred to that are stored."""
    return [
        (item.get("type") == "item_reference" and _item(serving, exchange, item)) or item for item in items
    ]


def _item(serving: Serving, exchange: Exchange, reference: Item) -> Item | None:
    return serving.stored.item(exchange.key_name, str(reference.get("id")))


async def show(serving: Serving, exchange: Exchange) -> None:
    name = exchange.path.removeprefix("/v1/responses/")
    page = _page(exchange)
    kept = _require(serving, exchange, name.removesuffix(_ITEMS))
    if page.stream == "true":
        raise BadRequest("A stored response isn't streamed again.", param="stream")
    await exchange.respond_json(_listed(kept.given, page) if name.endswith(_ITEMS) else kept.response)


async def delete(serving: Serving, exchange: Exchange) -> None:
    name = exchange.path.removeprefix("/v1/responses/")
    if not serving.stored.remove(exchange.key_name, name):
        raise _missing(serving, name)
    await exchange.respond_json({"id": name, "object": "response", "deleted": True})


def _page(exchange: Exchange) -> Page:
    try:
        return msgspec.convert(dict(parse_qsl(exchange.query)), Page, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def _require(serving: Serving, exchange: Exchange, name: str) -> Kept:
    kept = serving.stored.find(exchange.key_name, name)
    if kept is None:
        raise _missing(serving, name)
    return kept


def _missing(serving: Serving, name: str) -> NotFound:
    why = "" if serving.stored.most else f" {OFF}."
    return NotFound(f"Response with id {name[:64]!r} not found.{why}", code="response_not_found")


def _listed(items: list[Item], page: Page) -> dict[str, Any]:
    ordered = items if page.order == "asc" else items[::-1]
    names = [item["id"] for item in ordered]
    if page.after is not None:
        ordered = ordered[names.index(page.after) + 1 :] if page.after in names else []
    shown = ordered[: page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(shown) < len(ordered),
    }
