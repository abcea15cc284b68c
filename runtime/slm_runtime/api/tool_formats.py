"""How each family of models writes its calls, recognised by what its chat template says.

Adding a family is adding an entry; the generic format is what we teach to models whose template knows no
tools.
"""
# ruff: noqa: RUF001

import re
from typing import Any, Final

import msgspec

from slm_runtime.api.parsing import Call, ToolFormat
from slm_runtime.templates.chat import ChatFormat

_ARGUMENTS: Final = ("arguments", "parameters")


def _one(document: Any) -> Call | None:
    """A call as an object: `{"name": ..., "arguments": {...}}`, or the same inside `function`."""
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("function"), dict):
        document = document["function"]
    name = document.get("name")
    arguments: Any = next((document[key] for key in _ARGUMENTS if key in document), {})
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return name, arguments


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text.strip())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_json(text: str) -> list[Call] | None:
    """One object, a list of them, or several one after another with `;` or a line between."""
    document = _json(text)
    documents = document if isinstance(document, list) else [document]
    if document is None:
        documents = [_json(part) for part in re.split(r";|\n(?=\{)", text) if part.strip()]
    calls = [_one(one) for one in documents]
    return None if not calls or None in calls else [call for call in calls if call is not None]


def read_mistral(text: str) -> list[Call] | None:
    """A list of objects, or since version 11 `name[ARGS]{...}`, repeated behind `[TOOL_CALLS]`."""
    if "[ARGS]" not in text:
        return read_json(text)
    calls = []
    for part in text.split("[TOOL_CALLS]"):
        name, _, arguments = part.partition("[ARGS]")
        name, document = re.sub(r"\[CALL_ID\].*", "", name).strip(), _json(arguments)
        if not name or not isinstance(document, dict):
            return None
        calls.append((name, document))
    return calls


_DEEPSEEK_CALL: Final = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<name>[^\n<]+)(?:<｜tool▁sep｜>)?\s*"
    r"(?:```json\s*)?(?P<arguments>\{.*?\})\s*(?:```)?\s*<｜tool▁call▁end｜>",
    re.DOTALL,
)


def read_deepseek(text: str) -> list[Call] | None:
    calls = []
    for match in _DEEPSEEK_CALL.finditer(text):
        arguments = _json(match["arguments"])
        if not isinstance(arguments, dict):
            return None
        calls.append((match["name"].strip(), arguments))
    return calls or None


GENERIC: Final = ToolFormat("generic", "<tool_call>", "</tool_call>", read_json)
FORCED: Final = ToolFormat("forced", "", "", read_json)
"""For answers that a constraint made one call: the whole text is the object."""

FAMILIES: Final = (
    ToolFormat("deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", read_deepseek),
    ToolFormat("mistral", "[TOOL_CALLS]", "", read_mistral),
    ToolFormat("phi", "<|tool_call|>", "<|/tool_call|>", read_json, sign="<|tool|>"),
    GENERIC,
    ToolFormat("functools", "functools", "", read_json),
    ToolFormat(
        "llama",
        "",
        "",
        lambda text: read_json(text.replace("<|python_tag|>", "")),
        openers=("{", "[", "<|python_tag|>"),
        sign='"parameters"',
    ),
)
"""In the order of asking; templates of later families contain words of earlier ones less often than the
reverse."""


def tool_format(chat: ChatFormat) -> ToolFormat:
    """Tell how the model writes calls: by its template, or the way that it was taught."""
    if chat.tools == "taught":
        return GENERIC
    template = chat.tool_template
    return next((family for family in FAMILIES if (family.sign or family.begin) in template), GENERIC)
