"""What llama-server's users ask beside OpenAI's routes: tokens of a text, the text of tokens, what is served.

vLLM has the first two under the same paths, with other names for their fields; both are read, and both are told.
"""

from typing import Any, TypeVar

import msgspec

from slm_runtime.api.answering import cancelled_on_disconnect
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.prompts import Token
from slm_runtime.api.serving import Serving
from slm_runtime.version import VERSION

_Request = TypeVar("_Request", bound=msgspec.Struct)


class TokenizeRequest(msgspec.Struct, kw_only=True):
    content: str | None = None
    prompt: str | None = None
    """vLLM's name for it."""
    add_special: bool | None = None
    add_special_tokens: bool | None = None
    """vLLM's name for it."""
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[Token]


async def tokenize(serving: Serving, exchange: Exchange) -> None:
    """Unless it is said, the model's own tokens are put before vLLM's `prompt`, and not before llama-server's `content`."""
    wanted = _convert(await exchange.json(), TokenizeRequest)
    text = wanted.content if wanted.content is not None else wanted.prompt
    if text is None:
        raise BadRequest("Missing required parameter: 'content'.", param="content")
    if wanted.with_pieces:
        raise BadRequest(
            "'with_pieces' is not supported here: /detokenize tells what tokens stand for.",
            param="with_pieces",
        )
    serving.require_chat()
    special = wanted.add_special
    if special is None:
        special = wanted.content is None if wanted.add_special_tokens is None else wanted.add_special_tokens
    async with cancelled_on_disconnect(exchange):
        tokens = await serving.engine.tokenize(text, add_special=special, parse_special=wanted.parse_special)
    context = serving.engine.info.context_length
    await exchange.respond_json({"tokens": tokens, "count": len(tokens), "max_model_len": context})


async def detokenize(serving: Serving, exchange: Exchange) -> None:
    wanted = _convert(await exchange.json(), DetokenizeRequest)
    serving.require_chat()
    if len(wanted.tokens) > (most := serving.engine.info.context_length):
        raise BadRequest(f"'tokens' must be no more than the context length, {most}.", param="tokens")
    text = await serving.engine.detokenize(wanted.tokens)
    await exchange.respond_json({"content": text, "prompt": text})


async def props(serving: Serving, exchange: Exchange) -> None:
    """What is served, as far as it has a meaning here."""
    chat, info = serving.require_chat(), serving.engine.info
    set_here = serving.parameters.model_dump(exclude_none=True)
    document: dict[str, Any] = {
        "default_generation_settings": {"n_ctx": info.context_length, "params": set_here},
        "total_slots": info.parallel,
        "model_alias": serving.name,
        "model_path": serving.model.file_name,
        "chat_template": chat.template,
        "bos_token": info.bos_text,
        "eos_token": info.eos_text,
        "modalities": {"vision": False, "audio": False},
        "build_info": f"slm-runtime {VERSION}",
        "is_sleeping": serving.unloaded,
    }
    await exchange.respond_json(document)


def _convert(document: dict[str, Any], kind: type[_Request]) -> _Request:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise fields.invalid(error) from None
