"""The input of /v1/responses: a text, or items of several kinds, as chat templates know them."""

import secrets
from typing import Any, Literal

import msgspec

from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai.conversation import ContentPart, FunctionCall, Message, ToolCall, to_chat
from slm_runtime.api.openai.fields import invalid
from slm_runtime.templates.messages import ChatMessage


class MessageItem(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None


class CallItem(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None
    call_id: str | None = None


class ResultItem(msgspec.Struct):
    output: str | list[ContentPart] | None = None
    call_id: str | None = None


def items_of(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(given, str):
        return given
    return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]


def named(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With a name for each."""
    return [
        item if isinstance(item.get("id"), str) else {"id": f"item_{secrets.token_hex(12)}", **item}
        for item in items
    ]


def conversation(given: list[dict[str, Any]], instructions: str | None) -> list[ChatMessage]:
    """Read input and instructions as one conversation.

    Raises
    ------
    BadRequest
    """
    messages = [] if instructions is None else [Message("system", instructions)]
    for index, item in enumerate(given):
        _append(messages, item, f"input[{index}]")
    if not any(message.role != "system" for message in messages):
        raise BadRequest("'input' must hold at least one message.", param="input")
    return to_chat(messages, "input")


def _append(messages: list[Message], item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    try:
        if kind == "message":
            message = msgspec.convert(item, MessageItem)
            messages.append(Message(message.role, message.content or ""))
        elif kind == "function_call":
            _append_call(messages, msgspec.convert(item, CallItem))
        elif kind == "function_call_output":
            result = msgspec.convert(item, ResultItem)
            messages.append(Message("tool", result.output or "", tool_call_id=result.call_id))
        elif kind == "item_reference":
            raise BadRequest(
                f"'{where}' refers to an item of an earlier response, which isn't stored here: send the items "
                "themselves (in clients that refer by themselves, set `store` to false).",
                param=where,
            )
        elif kind != "reasoning":
            # Reasoning of earlier turns is not shown to the model again; the rest are of tools that nobody has here.
            raise BadRequest(
                f"'{where}' is of type {str(kind)[:50]!r}, which is not supported here.", param=where
            )
    except msgspec.ValidationError as error:
        raise invalid(error, where) from None


def _append_call(messages: list[Message], item: CallItem) -> None:
    """Calls side by side, and the text before them, are one message of the assistant's."""
    if not messages or messages[-1].role != "assistant":
        messages.append(Message("assistant", None))
    turn = messages[-1]
    turn.tool_calls = turn.tool_calls or []
    turn.tool_calls.append(ToolCall(FunctionCall(item.name, item.arguments), item.call_id))
