"""What Ollama gives its templates, and how the same is called in chat templates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["text", "number", "truth", "list", "map", "object", "any", "nothing"]


@dataclass(frozen=True)
class Shape:
    kind: Kind
    fields: Mapping[str, tuple[str, "Shape"]] = field(default_factory=dict)
    """Of an object: Go's name to an expression over `{}`, the object, and its shape."""
    element: "Shape | None" = None
    """Of a list or map."""
    name: str = ""
    """Of an object, for people."""


TEXT: Final = Shape("text")
NUMBER: Final = Shape("number")
TRUTH: Final = Shape("truth")
ANY: Final = Shape("any")
NOTHING: Final = Shape("nothing")
TEXTS: Final = Shape("list", element=TEXT)

_ARGUMENTS: Final = Shape("map", element=ANY)
_CALLED: Final = Shape(
    "object",
    {"Name": ("{}.name", TEXT), "Arguments": ("{}.arguments", _ARGUMENTS)},
    name="ToolCalls[].Function",
)
_TOOL_CALL: Final = Shape(
    "object", {"ID": ('({}.id or "")', TEXT), "Function": ("{}.function", _CALLED)}, name="ToolCalls[]"
)
MESSAGE: Final = Shape(
    "object",
    {
        "Role": ("{}.role", TEXT),
        "Content": ("{}.content", TEXT),
        "Thinking": ('({}.reasoning_content or "")', TEXT),
        "ToolCalls": ("({}.tool_calls or [])", Shape("list", element=_TOOL_CALL)),
        "ToolName": ('({}.name or "")', TEXT),
        "ToolCallID": ('({}.tool_call_id or "")', TEXT),
    },
    name="Messages[]",
)
_PROPERTY: Final = Shape(
    "object",
    {
        "Type": ("{}.type", ANY),
        "Description": ('({}.description or "")', TEXT),
        "Enum": ("{}.enum", Shape("list", element=ANY)),
        "Items": ('{}["items"]', ANY),
    },
    name="Properties[]",
)
_PARAMETERS: Final = Shape(
    "object",
    {
        "Type": ("{}.type", TEXT),
        "Required": ("{}.required", TEXTS),
        "Properties": ("{}.properties", Shape("map", element=_PROPERTY)),
    },
    name="Parameters",
)
_FUNCTION: Final = Shape(
    "object",
    {
        "Name": ("{}.name", TEXT),
        "Description": ('({}.description or "")', TEXT),
        "Parameters": ("({}.parameters or {{}})", _PARAMETERS),
    },
    name="Tools[].Function",
)
TOOL: Final = Shape(
    "object", {"Type": ("{}.type", TEXT), "Function": ("{}.function", _FUNCTION)}, name="Tools[]"
)

_THINKING: Final = {
    "Think": ("(enable_thinking is defined and enable_thinking)", TRUTH),
    "ThinkLevel": ('(reasoning_effort if reasoning_effort is defined else "")', TEXT),
    "IsThinkSet": ("(enable_thinking is defined)", TRUTH),
}
CONVERSATION: Final = Shape(
    "object",
    {
        "System": ("said.system", TEXT),
        "Messages": ("said.messages", Shape("list", element=MESSAGE)),
        "Tools": ("(tools or [])", Shape("list", element=TOOL)),
        "Prompt": ('""', TEXT),
        "Response": ('""', TEXT),
        "Suffix": ('""', TEXT),
        **_THINKING,
    },
)
"""For a template that names `.Messages`: it is rendered once."""
TURN: Final = Shape(
    "object",
    {
        "System": ("turn.system", TEXT),
        "Prompt": ("turn.prompt", TEXT),
        "Response": ("turn.response", TEXT),
        "Suffix": ('""', TEXT),
        "Tools": ("[]", Shape("list", element=TOOL)),
        **_THINKING,
    },
)
"""For one that doesn't: it is rendered for each turn, and the last ends where the answer begins."""
