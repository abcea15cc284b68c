"""POST /api/chat."""

from functools import partial
from typing import Any, Final

import msgspec

from slm_runtime.api.answering import LOGPROBS, generating
from slm_runtime.api.conversation.newest import newest_turns
from slm_runtime.api.conversation.tool_readers import arguments_of
from slm_runtime.api.conversation.turn import Tool, ToolChoice, prepare_turn
from slm_runtime.api.delivery import deliver
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.ollama.ndjson import Lines
from slm_runtime.api.ollama.options import parse_format
from slm_runtime.api.ollama.requests import (
    GeneratingRequest,
    answer_load,
    parse,
    remember_keep_alive,
    shown,
)
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import GenerateRequest
from slm_runtime.templates.messages import ChatMessage

_PARAMS: Final = {"prompt": "messages", "constraint": "format", "max_tokens": "options.num_predict"}
_ROLES: Final = ("system", "user", "assistant", "tool")


class CalledFunction(msgspec.Struct):
    name: str
    arguments: dict[str, Any] | str | None = None


class Called(msgspec.Struct):
    function: CalledFunction
    id: str | None = None


class OllamaMessage(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[Called] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def to_chat(self, where: str) -> ChatMessage:
        role = self.role.lower()
        if role not in _ROLES:
            raise BadRequest(
                f"message role {self.role[:50]!r} is unknown; it is one of {', '.join(_ROLES)}",
                param="messages",
            )
        message: ChatMessage = {"role": role, **shown(self.images, self.content or "", f"{where}.").fields()}
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.tool_name is not None:
            message["name"] = self.tool_name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id or "",
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": arguments_of(call.function.arguments),
                    },
                }
                for call in self.tool_calls
            ]
        return message


class OfferedFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None

    def to_tool(self) -> Tool:
        parameters = self.parameters or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description or "", "parameters": parameters}
        return {"type": "function", "function": function}


class Offered(msgspec.Struct):
    function: OfferedFunction


class OllamaChatRequest(GeneratingRequest, kw_only=True):
    messages: list[OllamaMessage] | None = None
    tools: list[Offered] | None = None


async def create(serving: Serving, exchange: Exchange) -> None:
    wanted = await parse(exchange, OllamaChatRequest)
    served = serving.require_model(wanted.model)
    options = wanted.parsed_options(serving)
    chat = serving.require_chat()
    keep_alive = remember_keep_alive(serving, wanted.keep_alive)
    if not wanted.messages:
        await answer_load(serving, exchange, "chat", wanted.model, keep_alive)
        return
    prepare = partial(
        prepare_turn,
        chat,
        tools=[tool.function.to_tool() for tool in wanted.tools or []],
        choice=ToolChoice(),
        constraint=parse_format(wanted.format),
        variables=wanted.template_variables(chat),
        continues=True,
    )
    messages = [message.to_chat(f"messages[{index}]") for index, message in enumerate(wanted.messages)]
    if wanted.truncate is False:
        turn = await prepare(messages)
    else:
        turn = await newest_turns(serving, messages, prepare, options.max_tokens)
    request = GenerateRequest(
        prompt=turn.prompt,
        max_tokens=options.max_tokens,
        sampling=options.sampling(),
        stop=options.stop_strings,
        logprobs=wanted.logprob_count(),
        most_logprobs=None if wanted.streams else LOGPROBS,
        constraint=turn.constraint,
        adapter=served.adapter,
        show_special=turn.show_special,
        keep_on_overflow=wanted.keep_on_overflow(options),
    )
    answer = Lines("chat", wanted.model, turn.parser(), hide_thinking=wanted.think is False)
    async with generating(serving, exchange, [request], {**_PARAMS, **turn.params}) as tracked:
        await deliver(exchange, tracked, answer, stream=wanted.streams)
