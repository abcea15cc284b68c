"""OpenAI's messages, checked and put into the shape that chat templates know."""

from typing import Any, Final, Literal

import msgspec

from slm_runtime.api.conversation.tool_readers import arguments_of
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.templates.messages import ChatMessage

TEXTS: Final = frozenset({"text", "input_text", "output_text", "summary_text"})


class ContentPart(msgspec.Struct):
    """Only text can be read; the other kinds are refused by name, but for what a model thought."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct):
    function: FunctionCall
    id: str | None = None


class Message(msgspec.Struct):
    """Unknown fields are let pass: clients send back what servers of all kinds have sent them."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """The last is what tools' results were before there were tools."""
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """Templates decide whose reasoning is shown again: Qwen's shows what led to a call, until the user speaks."""
    reasoning: Any = None
    """vLLM's name for it, where it is text."""
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


_ROLES: Final = {"developer": "system", "function": "tool"}
_THOUGHT: Final = frozenset({"thinking", "redacted_thinking", "reasoning"})


def _to_chat(message: Message, where: str) -> ChatMessage:
    content = _text(message, where)
    chat: ChatMessage = {"role": _ROLES.get(message.role, message.role), "content": content}
    if message.name is not None:
        chat["name"] = message.name
    if message.tool_call_id is not None:
        chat["tool_call_id"] = message.tool_call_id
    reasoning = message.reasoning_content or message.reasoning
    if isinstance(reasoning, str) and reasoning:
        chat["reasoning_content"] = reasoning
    if message.tool_calls:
        chat["tool_calls"] = [_call(call) for call in message.tool_calls]
    return chat


def _text(message: Message, where: str) -> str:
    content = message.content
    if content is None and message.role == "user":
        raise BadRequest(f"'{where}.content' must be text.", param=f"{where}.content")
    if content is None:
        return message.refusal or ""
    if isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content):
        if part.type in _THOUGHT:
            continue
        text = part.text if part.type in TEXTS else part.refusal if part.type == "refusal" else None
        if text is None:
            raise BadRequest(
                f"A content part of type {part.type[:50]!r} can't be read here: the model takes text, "
                "as {'type': 'text', 'text': ...}.",
                param=f"{where}.content[{index}]",
                code="unsupported_content",
            )
        texts.append(text)
    return "\n".join(texts)


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": arguments_of(call.function.arguments)}
    return {"id": call.id or "", "type": "function", "function": function}
