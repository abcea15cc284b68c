"""Notations of calls: from the text that a model wrote to names and arguments, or None for what is no call.

Models can be made to write anything, so each reads its text once from its beginning to its end.
"""
# ruff: noqa: RUF001

import ast
import json
import re
import warnings
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec
from typing_extensions import override

Call = tuple[str, dict[str, Any]]
Schema = dict[str, Any]
Read = Callable[[str], list[Call] | None]

_NAMES: Final = ("name", "tool_name")
_ARGUMENTS: Final = ("arguments", "parameters")
_FENCE: Final = "```"
_BETWEEN: Final = re.compile(r"[\s;,]*")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


# Small models leave line breaks in their strings as they are.
_decoder: Final = json.JSONDecoder(strict=False, parse_constant=_no_number)


def documents(text: str) -> list[Any] | None:
    """JSON documents one after another, with `;`, `,` or blanks between."""
    found = []
    position = _end_of(_BETWEEN, text, 0)
    try:
        while position < len(text):
            document, position = _decoder.raw_decode(text, position)
            found.append(document)
            position = _end_of(_BETWEEN, text, position)
        # Half a surrogate pair can be written in JSON, and not be sent to anybody.
        msgspec.json.encode(found)
    except (ValueError, RecursionError):
        return None
    return found


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def one_object(text: str) -> dict[str, Any] | None:
    found = documents(text)
    return found[0] if found is not None and len(found) == 1 and isinstance(found[0], dict) else None


def _call(document: Any) -> Call | None:
    """A call as an object: `{"name": ..., "arguments": {...}}`, or the same inside `function`."""
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("function"), dict):
        document = document["function"]
    name = next((document[key] for key in _NAMES if key in document), None)
    arguments: Any = next((document[key] for key in _ARGUMENTS if key in document), {})
    if isinstance(arguments, str):
        arguments = one_object(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return name, arguments


def _keyed(document: Any) -> Call | None:
    """A call as an object with one key, its name: Apertus' way."""
    if not isinstance(document, dict) or len(document) != 1:
        return None
    ((name, arguments),) = document.items()
    return (name, arguments) if name and isinstance(arguments, dict) else None


def _listed(text: str, read: Callable[[Any], Call | None]) -> list[Call] | None:
    found = documents(text)
    if found is not None and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    calls = [read(one) for one in found or []]
    return None if not calls or None in calls else [call for call in calls if call is not None]


def read_json(text: str) -> list[Call] | None:
    """One object, a list of them, or several one after another."""
    return _listed(text, _call)


def read_keyed(text: str) -> list[Call] | None:
    """Likewise, each with its name as its only key."""
    return _listed(text, _keyed)


def read_exact(text: str) -> list[Call] | None:
    """One object with a name and arguments, and nothing else."""
    document = one_object(text)
    call = _call(document) if document is not None and document.keys() == {"name", "arguments"} else None
    return None if call is None else [call]


def read_fenced(text: str) -> list[Call] | None:
    """Likewise, perhaps in a fence of Markdown's."""
    inside = text.strip()
    if inside.startswith(_FENCE):
        inside = inside.removeprefix(_FENCE).removeprefix("json").removesuffix(_FENCE)
    return read_json(inside)


_HEAD: Final = 512
"""Characters before a call's arguments, its name among them."""


def named(head: str, *, begin: str, end: str = "") -> Read:
    """Make a reader of calls whose name stands before their arguments, a JSON object.

    Parameters
    ----------
    head
        A pattern for all that stands before the arguments, with a group `name`.
    begin, end
        What each call begins and ends with.
    """
    pattern = re.compile(head)

    def read(text: str) -> list[Call] | None:
        calls = []
        for part in text.split(begin):
            if not part.strip():
                continue
            call, mark, rest = part.partition(end) if end else (part, "", "")
            place = call.find("{")
            match = pattern.fullmatch(call, 0, place) if 0 <= place <= _HEAD else None
            arguments = one_object(call[place:].rstrip("`\n "))
            if match is None or arguments is None or rest.strip() or (end and not mark):
                return None
            calls.append((match["name"], arguments))
        return calls or None

    return read


_named_after_mark: Final = named(
    r"\s*(?P<name>[\w.:-]+)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*", begin="[TOOL_CALLS]"
)


def read_mistral(text: str) -> list[Call] | None:
    """A list of objects, or since version 11 `name[ARGS]{...}`, repeated behind `[TOOL_CALLS]`."""
    return read_json(text) or _named_after_mark(text)


read_deepseek: Final = named(
    r"(?:function<｜tool▁sep｜>)?(?P<name>[^\s<]+)\s*(?:<｜tool▁sep｜>)?\s*(?:```json)?\s*",
    begin="<｜tool▁call▁begin｜>",
    end="<｜tool▁call▁end｜>",
)
read_kimi: Final = named(
    r"\s*(?:functions\.)?(?P<name>[\w.-]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*",
    begin="<|tool_call_begin|>",
    end="<|tool_call_end|>",
)
read_functionary: Final = named(r"(?P<name>[\w.:-]+)>\s*", begin="<function=")

_RECIPIENT: Final = re.compile(r"\s*(?:to=functions\.)?(?P<name>[\w.:-]{1,128})[^{}]{0,128}")


def read_harmony(text: str) -> list[Call] | None:
    """gpt-oss' way: whom it is for, its channel and its form, then the arguments."""
    head, mark, body = text.partition("<|message|>")
    recipient = _RECIPIENT.fullmatch(head[:_HEAD])
    arguments = one_object(body) if body.strip() else {}
    return [(recipient["name"], arguments)] if mark and recipient and arguments is not None else None


def gemma(quote: str) -> Read:
    """Make a reader of Gemma's notation: `call:NAME{key:value}`, its texts between two of the quotes."""
    token = re.compile(
        rf"{re.escape(quote)}(?P<text>.*?){re.escape(quote)}|(?P<sign>[{{}}\[\],:])|(?P<word>[^{{}}\[\],:<]+|<)",
        re.DOTALL,
    )
    head = re.compile(r"\s*call:(?P<name>[\w.:-]{1,128})\s*(?=\{)")

    def read(text: str) -> list[Call] | None:
        call = head.match(text)
        if call is None:
            return None
        written = "".join(
            found["sign"] or json_of(found["text"], found["word"])
            for found in token.finditer(text, call.end())
        )
        arguments = one_object(written)
        return None if arguments is None else [(call["name"], arguments)]

    return read


_PLAIN: Final = re.compile(r"true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def json_of(text: str | None, word: str | None) -> str:
    """A text between Gemma's quotes, or a word without any, as JSON."""
    if text is not None:
        return json.dumps(text)
    word = (word or "").strip()
    return word if not word or _PLAIN.fullmatch(word) else json.dumps(word)


_JSON_NAMES: Final = {"true": True, "false": False, "null": None}


class _JsonNames(ast.NodeTransformer):
    @override
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_JSON_NAMES[node.id]) if node.id in _JSON_NAMES else node


def read_python(text: str) -> list[Call] | None:
    """A list of calls as Python writes them, `[weather(city="Paris")]`, their arguments all literals."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text.strip(), mode="eval").body
        calls = [_python_call(one) for one in (tree.elts if isinstance(tree, ast.List) else [tree])]
        msgspec.json.encode(calls)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    return calls or None


def python_arguments(text: str) -> dict[str, Any] | None:
    """Named arguments, all literals, as they stand between a call's brackets."""
    calls = read_python(f"f({text})")
    return calls[0][1] if calls is not None and len(calls) == 1 else None


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with named arguments")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        arguments[keyword.arg] = ast.literal_eval(_JsonNames().visit(keyword.value))
    return ast.unparse(node.func), arguments


def read_listed(text: str) -> list[Call] | None:
    """As Python or as JSON: LFM2 can be told to write either."""
    return read_json(text) or read_python(text)


def arguments_of(written: str | dict[str, Any] | None) -> dict[str, Any]:
    """Read a call's arguments as far as it can be: what a small model wrote wrongly comes back in its history."""
    if isinstance(written, dict):
        return written
    try:
        arguments = msgspec.json.decode(written or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": written}


def as_declared(arguments: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Read what was written as text where the tool wants something else: XML knows no numbers."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return arguments
    return {name: as_declared_value(value, properties.get(name)) for name, value in arguments.items()}


def as_declared_value(value: Any, schema: Any) -> Any:
    """Likewise, one argument's value."""
    if not isinstance(value, str) or may_be_text(schema):
        return value
    found = documents(value)
    return found[0] if found is not None and len(found) == 1 else value


def may_be_text(schema: Any) -> bool:
    declared = schema.get("type") if isinstance(schema, dict) else None
    return declared is None or "string" in (declared if isinstance(declared, list) else [declared])
