"""A request of OpenAI's API, read: what isn't known here is ignored and told, or refused where the deployment says so."""

from typing import Any, TypeVar

import msgspec

from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.openai import fields
from slm_runtime.api.serving import Serving

_Request = TypeVar("_Request", bound=msgspec.Struct)


async def read(serving: Serving, exchange: Exchange, kind: type[_Request], known: fields.Fields) -> _Request:
    """Read and check a request's body.

    Raises
    ------
    BadRequest
    """
    document = await exchange.json()
    exchange.user = exchange.user or _user(document)
    if serving.config.unknown_fields != "Refuse":
        exchange.tell_ignored(fields.take_unknown(document, known))
    return fields.parse(document, kind, known)


def _user(document: dict[str, Any]) -> str:
    """Whom a client that stands for many asks for, if it says so."""
    named = (document.get(name) for name in ("safety_identifier", "user"))
    return next((name for name in named if isinstance(name, str)), "")
