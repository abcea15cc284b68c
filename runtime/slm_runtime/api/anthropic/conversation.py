"""Anthropic's blocks, put into the shape that chat templates know."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from slm_runtime.api.anthropic.requests import Block, MessageParam
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
    texts: list[str] = []
    results = 0
    for index, block in enumerate(blocks):
        if block.type != "tool_result":
            texts += _texts([block], where, index)
            continue
        if said := _joined(texts):
            yield {"role": role, "content": said}
        texts = []
        results += 1
        content = [Block("text", block.content)] if isinstance(block.content, str) else block.content or []
        yield {
            "role": "tool",
            "content": _joined(_texts(content, f"{where}[{index}].content")),
            "tool_call_id": block.tool_use_id,
            "name": called.get(block.tool_use_id, ""),
        }
    if (said := _joined(texts)) or not results:
        yield {"role": role, "content": said}


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
        f"{where}: a block of type {block.type[:50]!r} can't be read here: the model takes text. Leave it out.",
        param=where,
        code="unsupported_content",
    )


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)
