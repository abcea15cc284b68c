"""OpenAI's messages, checked and put into the shape that chat templates know."""

from typing import Any, Final, Literal

import msgspec

from slm_runtime.api.conversation.pictures import Content, Sent
from slm_runtime.api.conversation.tool_readers import arguments_of
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.templates.messages import ChatMessage

TEXTS: Final = frozenset({"text", "input_text", "output_text", "summary_text"})
IMAGES: Final = frozenset({"image_url", "input_image"})


class ImageUrl(msgspec.Struct):
    url: str


class ContentPart(msgspec.Struct):
    """Texts and images can be read; the other kinds are refused by name, but for what a model thought."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    """Text: as Responses have it."""


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


def to_chat(messages: list[Message], field: str | None = None) -> list[ChatMessage]:
    """Templates know no developer, no parts, and want the arguments of calls as objects.

    Parameters
    ----------
    field
        Where in the request they come from, if they aren't its `messages`.

    Raises
    ------
    BadRequest
    """
    if not messages:
        raise BadRequest("'messages' must hold at least one message.", param="messages")
    return [_to_chat(message, field or f"messages[{index}]") for index, message in enumerate(messages)]


_ROLES: Final = {"developer": "system", "function": "tool"}
_THOUGHT: Final = frozenset({"thinking", "redacted_thinking", "reasoning"})


def _to_chat(message: Message, where: str) -> ChatMessage:
    chat: ChatMessage = {"role": _ROLES.get(message.role, message.role), **_content(message, where).fields()}
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


def _content(message: Message, where: str) -> Content:
    given, content = message.content, Content()
    if given is None and message.role == "user":
        raise BadRequest(f"'{where}.content' must be text.", param=f"{where}.content")
    if given is None or isinstance(given, str):
        content.say((message.refusal or "") if given is None else given)
        return content
    for index, part in enumerate(given):
        if part.type not in _THOUGHT:
            _add(content, part, f"{where}.content[{index}]")
    return content


def _add(content: Content, part: ContentPart, where: str) -> None:
    text = part.text if part.type in TEXTS else part.refusal if part.type == "refusal" else None
    image = part.image_url.url if isinstance(part.image_url, ImageUrl) else part.image_url
    if text is not None:
        content.say(text)
    elif part.type in IMAGES and image is not None:
        content.show(Sent(image, where))
    else:
        raise BadRequest(
            f"A content part of type {part.type[:50]!r} can't be read here: the model takes text, "
            "as {'type': 'text', 'text': ...}, and where it sees images, these as {'type': 'image_url', 'image_url': ...}.",
            param=where,
            code="unsupported_content",
        )


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": arguments_of(call.function.arguments)}
    return {"id": call.id or "", "type": "function", "function": function}
