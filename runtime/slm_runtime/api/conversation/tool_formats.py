"""How each family of models writes its calls, recognised by what its chat template says.

Adding a family is adding an entry; the generic format is what we teach to models whose template knows no
tools.
"""
# ruff: noqa: RUF001

from typing import Final

from slm_runtime.api.conversation.parsing import ToolFormat
from slm_runtime.api.conversation.tool_readers import (
    read_deepseek,
    read_exact,
    read_fenced,
    read_json,
    read_mistral,
    read_python,
    read_tagged,
)
from slm_runtime.templates.chat import ChatFormat

GENERIC: Final = ToolFormat("generic", "<tool_call>", "</tool_call>", read_tagged)
FORCED: Final = ToolFormat("forced", "", "", read_json, openers=("{",), demanded=True)
"""For answers that a constraint made one call: the whole text is the object."""
EITHER: Final = ToolFormat("either", "", "", read_exact, openers=('{"name"',))
"""For answers that a constraint made one call or something else."""
BARE: Final = ToolFormat(
    "bare",
    "",
    "",
    read_fenced,
    openers=tuple(
        f'{fence}{bracket}{{"{key}"'
        for fence in ("", "```json", "```")
        for bracket in ("", "[")
        for key in ("name", "type", "function", "arguments", "parameters")
    ),
)
"""Llama's own way, and what small models of every family write when they forget their marks."""

FAMILIES: Final = (
    ToolFormat("deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", read_deepseek),
    ToolFormat("mistral", "[TOOL_CALLS]", "", read_mistral),
    ToolFormat("phi", "<|tool_call|>", "<|/tool_call|>", read_json, signs=("<|tool|>",)),
    ToolFormat(
        "functools", "functools[", "", lambda text: read_json("[" + text), signs=("functools", "<|tool|>")
    ),
    GENERIC,
    ToolFormat("llama", "<|python_tag|>", "", read_json, signs=('"parameters"',)),
    ToolFormat("python", "", "", read_python, openers=("[NAME(",), signs=('"parameters"',)),
)


def tool_formats(chat: ChatFormat) -> tuple[ToolFormat, ...]:
    """Tell how the model may write calls: what its template mentions, and what it was taught."""
    known = [
        family
        for family in FAMILIES
        if any(sign in chat.tool_template for sign in family.signs or (family.begin,))
        or (chat.tools == "taught" and family is GENERIC)
    ]
    return (*(known or (GENERIC,)), BARE)
