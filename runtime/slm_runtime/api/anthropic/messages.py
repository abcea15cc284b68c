"""POST /v1/messages, and /v1/messages/count_tokens."""

import secrets
from typing import Final

from slm_runtime.api.answering import cancelled_on_disconnect, generating
from slm_runtime.api.anthropic.answer import MessageAnswer
from slm_runtime.api.anthropic.conversation import to_chat
from slm_runtime.api.anthropic.requests import MessagesRequest, ToolChoiceParam, parse
from slm_runtime.api.conversation.turn import Turn, prepare_turn
from slm_runtime.api.delivery import deliver
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import GenerateRequest

_PARAMS: Final = {"prompt": "messages", "constraint": "output_config.format", "stop": "stop_sequences"}


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a conversation, whole or as a stream of events."""
    wanted = parse(await exchange.json())
    served = serving.require_model(wanted.model)
    turn = await _turn(serving, wanted)
    request = GenerateRequest(
        prompt=turn.prompt,
        max_tokens=wanted.max_tokens or serving.parameters.max_tokens,
        sampling=wanted.sampling().sampling(serving.parameters),
        stop=serving.stop_strings(wanted.stops()),
        constraint=turn.constraint,
        show_special=turn.show_special,
        adapter=served.adapter,
    )
    head = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": served.name,
    }
    async with generating(serving, exchange, [request], {**_PARAMS, **turn.params}) as tracked:
        answer = MessageAnswer(head, turn.parser(), tracked[0].prompt_tokens, wanted.stops() or [])
        await deliver(exchange, tracked, answer, stream=bool(wanted.stream))


async def count_tokens(serving: Serving, exchange: Exchange) -> None:
    """Tell how many tokens the prompt of such a request has."""
    wanted = parse(await exchange.json())
    serving.require_model(wanted.model)
    turn = await _turn(serving, wanted)
    async with cancelled_on_disconnect(exchange):
        tokens = await serving.engine.tokenize(turn.prompt, add_special=True, parse_special=True)
    await exchange.respond_json({"input_tokens": len(tokens)})


async def _turn(serving: Serving, wanted: MessagesRequest) -> Turn:
    return await prepare_turn(
        serving.require_chat(),
        to_chat(wanted.messages, wanted.system),
        tools=wanted.offered(),
        choice=(wanted.tool_choice or ToolChoiceParam()).to_choice(),
        constraint=wanted.constraint(),
        variables=wanted.template_variables(),
        # To Anthropic, the assistant's last message is what the model goes on from.
        continues=True,
        remote=serving.remote_pictures,
    )
