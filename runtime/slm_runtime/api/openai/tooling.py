"""`tools` and `tool_choice`, checked."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from slm_runtime.api.conversation.turn import TOOLS, Tool, ToolChoice
from slm_runtime.api.http.problems import BadRequest

Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")]


class Function(msgspec.Struct):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct):
    function: Function
    type: Literal["function"] = "function"


Tools = Annotated[list[FunctionTool], Meta(max_length=TOOLS)]


class NamedFunction(msgspec.Struct):
    name: str


class NamedChoice(msgspec.Struct, tag_field="type", tag="function"):
    function: NamedFunction


class AllowedTools(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[NamedChoice]


class AllowedChoice(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: AllowedTools


Choice = Literal["none", "auto", "required"] | NamedChoice | AllowedChoice


def offer(
    tools: list[FunctionTool] | None, choice: Choice | None, parallel: bool | None
) -> tuple[list[Tool], ToolChoice]:
    """Read `tools`, `tool_choice` and `parallel_tool_calls`: what the model is shown, and what it may do.

    Raises
    ------
    BadRequest
        A choice without tools to choose from.
    """
    offered = [_plain(tool.function) for tool in tools or []]
    several = parallel is not False
    if choice is None or choice == "none":
        return offered, ToolChoice("none" if choice else "auto", parallel=several)
    if not offered and choice == "auto":
        return [], ToolChoice(parallel=several)
    if not offered:
        raise BadRequest("'tool_choice' is only allowed with 'tools'.", param="tool_choice")
    if isinstance(choice, NamedChoice):
        return offered, ToolChoice("named", choice.function.name)
    if isinstance(choice, AllowedChoice):
        return _allowed(offered, choice.allowed_tools), ToolChoice(
            choice.allowed_tools.mode, parallel=several
        )
    return offered, ToolChoice(choice, parallel=several)


def _allowed(offered: list[Tool], allowed: AllowedTools) -> list[Tool]:
    """Of the tools, those that may be called: a small model is not shown the others."""
    names = {tool.function.name for tool in allowed.tools}
    unknown = names - {tool["function"]["name"] for tool in offered}
    if unknown or not names:
        raise BadRequest(
            f"'tool_choice' allows {min(unknown, default='nothing')!r}, which is not among 'tools'.",
            param="tool_choice",
        )
    return [tool for tool in offered if tool["function"]["name"] in names]


def _plain(function: Function) -> Tool:
    """Write a tool as templates know it."""
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        },
    }
