"""How each family of models writes its calls, recognised by what its chat template says.

Adding a family is adding an entry; the generic format is what we teach to models whose template knows no
tools.
"""
# ruff: noqa: RUF001

from typing import Final

from slm_runtime.api.conversation import notations
from slm_runtime.api.conversation.element_readers import read_glm, read_invoked, read_minicpm, read_tagged
from slm_runtime.api.conversation.parsing import ToolFormat
from slm_runtime.api.conversation.tool_readers import (
    gemma,
    read_deepseek,
    read_exact,
    read_fenced,
    read_functionary,
    read_harmony,
    read_json,
    read_keyed,
    read_kimi,
    read_listed,
    read_mistral,
    read_python,
)
from slm_runtime.templates.chat import ChatFormat

GENERIC: Final = ToolFormat(
    "generic",
    "<tool_call>",
    "</tool_call>",
    read_tagged,
    grows=notations.TAGGED,
    signs=("<tool_call>\\n", "<tool_call>\n", "<tool_call>{", "<tool_call></tool_call>"),
)
FORCED: Final = ToolFormat("forced", "", "", read_json, openers=("{",), grows=notations.JSON, demanded=True)
"""For answers that a constraint made one call: the whole text is the object."""
EITHER: Final = ToolFormat("either", "", "", read_exact, openers=('{"name"',))
"""For answers that a constraint made one call or something else."""
BARE: Final = ToolFormat(
    "bare",
    "",
    "",
    read_fenced,
    grows=notations.JSON,
    openers=tuple(
        f'{fence}{bracket}{{"{key}"'
        for fence in ("", "```json", "```")
        for bracket in ("", "[")
        for key in ("name", "type", "function", "arguments", "parameters")
    ),
)
"""Llama's own way, and what small models of every family write when they forget their marks."""

_HARMONY: Final = ("<|channel|>analysis",)
_COMMAND_R: Final = "Action:\n```json"

FAMILIES: Final = (
    *(
        ToolFormat("harmony", begin, "<|call|>", read_harmony, grows=notations.HARMONY, signs=_HARMONY)
        for begin in (
            "<|channel|>commentary to=functions.",
            "<|channel|>analysis to=functions.",
            "<|start|>assistant to=functions.",
        )
    ),
    # The prompt has begun the turn.
    ToolFormat(
        "harmony",
        "",
        "<|call|>",
        read_harmony,
        openers=("to=functions.",),
        grows=notations.HARMONY,
        signs=_HARMONY,
    ),
    ToolFormat(
        "deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", read_deepseek, grows=notations.DEEPSEEK
    ),
    ToolFormat("mistral", "[TOOL_CALLS]", "", read_mistral, grows=notations.MISTRAL),
    ToolFormat(
        "phi", "<|tool_call|>", "<|/tool_call|>", read_json, grows=notations.JSON, signs=("<|tool|>",)
    ),
    ToolFormat("granite", "<|tool_call|>", "", read_json, grows=notations.JSON, signs=("<|tool_call|>",)),
    ToolFormat(
        "functools",
        "functools[",
        "",
        lambda text: read_json("[" + text),
        grows=notations.JSON,
        signs=("functools", "<|tool|>"),
    ),
    ToolFormat(
        "functionary",
        "<function=",
        "</function>",
        read_functionary,
        grows=notations.FUNCTIONARY,
        signs=("'<function=' + tool_call['function']['name'] + '>' +",),
    ),
    ToolFormat("gemma", "<|tool_call>", "<tool_call|>", gemma('<|"|>'), grows=notations.gemma('<|"|>')),
    ToolFormat(
        "functiongemma",
        "<start_function_call>",
        "<end_function_call>",
        gemma("<escape>"),
        grows=notations.gemma("<escape>"),
    ),
    ToolFormat(
        "lfm2",
        "<|tool_call_start|>",
        "<|tool_call_end|>",
        read_listed,
        grows=(*notations.JSON, *notations.PYTHON),
        signs=("<|tool_call_start|>", "<|tool_list_start|>", '"List of tools: ["'),
    ),
    ToolFormat("command", "<|START_ACTION|>", "<|END_ACTION|>", read_json, grows=notations.JSON),
    ToolFormat(
        "command-r",
        _COMMAND_R,
        "```",
        read_json,
        grows=notations.JSON,
        signs=("Action:\\n```json", _COMMAND_R),
    ),
    ToolFormat("apertus", "<|tools_prefix|>", "<|tools_suffix|>", read_keyed, grows=notations.KEYED),
    ToolFormat("listed", "<tool_calls>", "</tool_calls>", read_json, grows=notations.JSON),
    ToolFormat("nemotron", "<TOOLCALL>", "</TOOLCALL>", read_json, grows=notations.JSON),
    ToolFormat("gigachat", "<|function_call|>", "", read_json, grows=notations.JSON),
    ToolFormat(
        "gigachat",
        "<|message_sep|>\n\nfunction call<|role_sep|>\n",
        "",
        read_json,
        grows=notations.JSON,
        signs=('role_sep="<|role_sep|>\\n"',),
    ),
    ToolFormat(
        "kimi", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", read_kimi, grows=notations.KIMI
    ),
    ToolFormat(
        "minimax", "<minimax:tool_call>", "</minimax:tool_call>", read_invoked, grows=notations.INVOKED
    ),
    ToolFormat("seed", "<seed:tool_call>", "</seed:tool_call>", read_tagged, grows=notations.TAGGED),
    ToolFormat(
        "minicpm",
        '<function name="',
        "</function>",
        read_minicpm,
        grows=notations.MINICPM,
        signs=('<param name="',),
    ),
    ToolFormat("glm", "<tool_call>", "</tool_call>", read_glm, grows=notations.GLM, signs=("<arg_key>",)),
    GENERIC,
    ToolFormat(
        "llama", "<|python_tag|>", "", read_json, grows=notations.JSON, signs=('"parameters": dictionary',)
    ),
    ToolFormat(
        "python",
        "",
        "",
        read_python,
        openers=("[NAME(",),
        grows=notations.PYTHON,
        signs=('"parameters": dictionary',),
    ),
)


def tool_formats(chat: ChatFormat) -> tuple[ToolFormat, ...]:
    """Tell how the model may write calls: as its family does, and as models do that forget their marks."""
    return (*known_formats(chat), GENERIC, BARE)


def known_formats(chat: ChatFormat) -> tuple[ToolFormat, ...]:
    """What the model's template mentions, or what it was taught; none: its calls can't be told from text."""
    return tuple(
        family
        for family in FAMILIES
        if any(sign in chat.tool_template for sign in family.signs or (family.begin,))
        or (chat.tools == "taught" and family is GENERIC)
    )
