"""Anthropic's blocks, put into the shape that chat templates know."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from slm_runtime.api.anthropic.requests import Block, MessageParam
from slm_runtime.api.conversation.pictures import Content, Sent
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.templates.messages import ChatMessage

_ATTRIBUTION: Final = "x-anthropic-billing-header:"
"""A line that Claude Code puts before its system message, another one with each request: no prefix would ever be
found again, and it means nothing to a model."""


def to_chat(messages: list[MessageParam], system: str | list[Block] | None) -> list[ChatMessage]:
    """Results of tools are messages of their own to templates, and calls are fields of the assistant's.

    Raises
    ------
    BadRequest
    """
    if not messages:
        raise BadRequest("'messages' must hold at least one message.", param="messages")
    told = _system(system)
    chat: list[ChatMessage] = [{"role": "system", "content": told}] if told else []
    called: dict[str, str] = {}
    for index, message in enumerate(messages):
        where = f"messages[{index}].content"
        blocks = [Block("text", message.content)] if isinstance(message.content, str) else message.content
        if message.role == "assistant":
            chat.append(_assistant(blocks, where))
            called |= {block.id: block.name for block in blocks if block.type == "tool_use"}
        else:
            chat += _said(message.role, blocks, where, called)
    return chat


def _system(system: str | list[Block] | None) -> str:
    blocks = [Block("text", system)] if isinstance(system, str) else system or []
    return _joined(
        text.partition("\n")[2] if text.startswith(_ATTRIBUTION) else text
        for text in _texts(blocks, "system")
    )


def _said(role: str, blocks: list[Block], where: str, called: dict[str, str]) -> Iterator[ChatMessage]:
    """What a user's message says, and the results in it, in their order."""
    content = Content()
    results = 0
    for index, block in enumerate(blocks):
        if block.type != "tool_result":
            _add(content, block, f"{where}[{index}]")
            continue
        if not content.empty:
            yield {"role": role, **content.fields()}
        content = Content()
        results += 1
        inner = [Block("text", block.content)] if isinstance(block.content, str) else block.content or []
        result = Content()
        for place, each in enumerate(inner):
            _add(result, each, f"{where}[{index}].content[{place}]")
        yield {
            "role": "tool",
            **result.fields(),
            "tool_call_id": block.tool_use_id,
            "name": called.get(block.tool_use_id, ""),
        }
    if not content.empty or not results:
        yield {"role": role, **content.fields()}


def _add(content: Content, block: Block, where: str) -> None:
    if block.type == "image":
        content.show(_image(block.source or {}, where))
    elif text := _text(block, where):
        content.say(text)


def _image(source: dict[str, Any], where: str) -> Sent:
    kind, data = source.get("type"), source.get("data")
    if kind == "base64" and isinstance(data, str):
        return Sent(data, where, uri=False)
    if kind == "url" and isinstance(url := source.get("url"), str):
        return Sent(url, where)
    raise BadRequest(
        f"{where}: an image's source must be of type base64, with its data.",
        param=where,
        code="invalid_image",
    )


def _assistant(blocks: list[Block], where: str) -> ChatMessage:
    thoughts = "\n".join(block.thinking or "" for block in blocks if block.type == "thinking")
    calls = [block for block in blocks if block.type == "tool_use"]
    others = [block for block in blocks if block.type not in {"thinking", "redacted_thinking", "tool_use"}]
    chat: ChatMessage = {"role": "assistant", "content": _joined(_texts(others, where))}
    if thoughts:
        chat["reasoning_content"] = thoughts
    if calls:
        chat["tool_calls"] = [_call(call) for call in calls]
    return chat


def _call(block: Block) -> dict[str, Any]:
    arguments = block.input if isinstance(block.input, dict) else {}
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _texts(blocks: list[Block], where: str, first: int = 0) -> list[str]:
    return [_text(block, f"{where}[{index}]") for index, block in enumerate(blocks, first)]


def _text(block: Block, where: str) -> str:
    """The text of what can be read as one."""
    if block.type == "text":
        return block.text or ""
    if block.type == "tool_reference":
        return block.tool_name
    if block.type == "search_result" and isinstance(block.content, list):
        return _joined(_texts(block.content, f"{where}.content"))
    if block.type == "document" and (block.source or {}).get("type") == "text":
        return str((block.source or {}).get("data", ""))
    raise BadRequest(
        f"{where}: a block of type {block.type[:50]!r} can't be read here: send text, and images where the model sees any.",
        param=where,
        code="unsupported_content",
    )


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)
