"""OpenAI's messages, checked and put into the shape that chat templates know."""

from typing import Any, Literal

import msgspec

from slm_runtime.api.http.problems import BadRequest
from slm_runtime.templates.messages import ChatMessage


class ContentPart(msgspec.Struct):
    """Only text can be read; the other kinds are refused by name."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct):
    function: FunctionCall
    id: str = ""
    type: Literal["function"] = "function"


class Message(msgspec.Struct):
    """Unknown fields are let pass: clients send back what servers of all kinds have sent them."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """Templates decide whose reasoning is shown again: Qwen's shows what led to a call, until the user speaks."""
    refusal: str | None = None


def to_chat(messages: list[Message]) -> list[ChatMessage]:
    """Templates know no developer, no parts, and want the arguments of calls as objects.

    Raises
    ------
    BadRequest
    """
    if not messages:
        raise BadRequest("'messages' must hold at least one message.", param="messages")
    return [_to_chat(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _to_chat(message: Message, where: str) -> ChatMessage:
    content = _text(message, where)
    if message.role == "tool" and message.tool_call_id is None:
        raise BadRequest(
            f"A message of role 'tool' must name the call it answers in '{where}.tool_call_id'.",
            param=f"{where}.tool_call_id",
        )
    chat: ChatMessage = {
        "role": "system" if message.role == "developer" else message.role,
        "content": content,
    }
    if message.name is not None:
        chat["name"] = message.name
    if message.tool_call_id is not None:
        chat["tool_call_id"] = message.tool_call_id
    if message.reasoning_content is not None:
        chat["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        chat["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)
        ]
    return chat


def _text(message: Message, where: str) -> str:
    content = message.content
    if content is None:
        if message.role == "assistant" and (message.tool_calls or message.refusal is not None):
            return message.refusal or ""
        raise BadRequest(f"'{where}.content' must be text.", param=f"{where}.content")
    if isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is None:
            raise BadRequest(
                f"A content part of type {part.type[:50]!r} can't be read here: the model takes text, "
                "as {'type': 'text', 'text': ...}.",
                param=f"{where}.content[{index}]",
                code="unsupported_content",
            )
        texts.append(text)
    return "\n".join(texts)


def _call(call: ToolCall, where: str) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(
            f"'{where}.function.arguments' must be a JSON object, written as a string.",
            param=f"{where}.function.arguments",
        )
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
