"""`tools` and `tool_choice`, checked."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from slm_runtime.api.errors import BadRequest
from slm_runtime.api.turn import TOOLS, Tool, ToolChoice

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


class NamedChoice(msgspec.Struct):
    function: NamedFunction
    type: Literal["function"] = "function"


Choice = Literal["none", "auto", "required"] | NamedChoice


def plain(tools: list[FunctionTool] | None) -> list[Tool]:
    """Write tools as templates know them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.function.name,
                "description": tool.function.description or "",
                "parameters": tool.function.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in tools or []
    ]


def chosen(
    choice: Choice | None, tools: list[FunctionTool] | None, parallel: bool | None = None
) -> ToolChoice:
    """Read `tool_choice` and `parallel_tool_calls`.

    Raises
    ------
    BadRequest
        A choice without tools to choose from.
    """
    if choice is None or choice == "none":
        return ToolChoice("none" if choice else "auto", parallel=parallel is not False)
    if not tools:
        raise BadRequest("'tool_choice' is only allowed with 'tools'.", param="tool_choice")
    if isinstance(choice, NamedChoice):
        return ToolChoice("named", choice.function.name)
    return ToolChoice(choice, parallel=parallel is not False)
