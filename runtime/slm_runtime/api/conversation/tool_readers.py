"""Notations of calls: from the text that a model wrote to names and arguments, or None for what is no call."""
# ruff: noqa: RUF001

import ast
import json
import re
import warnings
from typing import Any, Final, NoReturn

import msgspec

Call = tuple[str, dict[str, Any]]
Schema = dict[str, Any]

_ARGUMENTS: Final = ("arguments", "parameters")
_FENCE: Final = re.compile(r"\s*```(?:json)?(?P<inside>.*?)(?:```)?\s*", re.DOTALL)
_BETWEEN: Final = re.compile(r"[\s;,]*")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


# Small models leave line breaks in their strings as they are.
_decoder: Final = json.JSONDecoder(strict=False, parse_constant=_no_number)


def _documents(text: str) -> list[Any] | None:
    """JSON documents one after another, with `;`, `,` or blanks between."""
    documents = []
    position = _end_of(_BETWEEN, text, 0)
    try:
        while position < len(text):
            document, position = _decoder.raw_decode(text, position)
            documents.append(document)
            position = _end_of(_BETWEEN, text, position)
        # Half a surrogate pair can be written in JSON, and not be sent to anybody.
        msgspec.json.encode(documents)
    except (ValueError, RecursionError):
        return None
    return documents


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _object(text: str) -> dict[str, Any] | None:
    documents = _documents(text)
    if documents is None or len(documents) != 1 or not isinstance(documents[0], dict):
        return None
    return documents[0]


def _call(document: Any) -> Call | None:
    """A call as an object: `{"name": ..., "arguments": {...}}`, or the same inside `function`."""
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("function"), dict):
        document = document["function"]
    name = document.get("name")
    arguments: Any = next((document[key] for key in _ARGUMENTS if key in document), {})
    if isinstance(arguments, str):
        arguments = _object(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return name, arguments


def read_json(text: str) -> list[Call] | None:
    """One object, a list of them, or several one after another."""
    documents = _documents(text)
    if documents is not None and len(documents) == 1 and isinstance(documents[0], list):
        documents = documents[0]
    calls = [_call(one) for one in documents or []]
    return None if not calls or None in calls else [call for call in calls if call is not None]


def read_exact(text: str) -> list[Call] | None:
    """One object with a name and arguments, and nothing else."""
    document = _object(text)
    call = _call(document) if document is not None and document.keys() == {"name", "arguments"} else None
    return None if call is None else [call]


def read_fenced(text: str) -> list[Call] | None:
    """Likewise, perhaps in a fence of Markdown's."""
    fenced = _FENCE.fullmatch(text)
    return read_json(fenced["inside"] if fenced else text)


_XML_CALL: Final = re.compile(r"\s*<function=(?P<name>[^>\n]+)>(?P<arguments>.*?)</function>\s*", re.DOTALL)
_XML_ARGUMENT: Final = re.compile(
    r"\s*<parameter=(?P<name>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>\s*", re.DOTALL
)


def read_tagged(text: str) -> list[Call] | None:
    """JSON, or since Qwen3-Coder an element for the function and one for each argument."""
    call = _XML_CALL.fullmatch(text)
    if call is None:
        return read_json(text)
    arguments = {one["name"]: one["value"] for one in _XML_ARGUMENT.finditer(call["arguments"])}
    return None if _XML_ARGUMENT.sub("", call["arguments"]).strip() else [(call["name"], arguments)]


_MISTRAL_CALL: Final = re.compile(
    r"\s*(?P<name>[\w.:-]+)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?P<arguments>\{.*\})\s*", re.DOTALL
)


def read_mistral(text: str) -> list[Call] | None:
    """A list of objects, or since version 11 `name[ARGS]{...}`, repeated behind `[TOOL_CALLS]`."""
    listed = read_json(text)
    if listed is not None:
        return listed
    calls = []
    for part in text.split("[TOOL_CALLS]"):
        call = _MISTRAL_CALL.fullmatch(part)
        arguments = _object(call["arguments"]) if call else None
        if call is None or arguments is None:
            return None
        calls.append((call["name"], arguments))
    return calls


_DEEPSEEK_CALL: Final = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<name>[^\n<]+)(?:<｜tool▁sep｜>)?\s*"
    r"(?:```json\s*)?(?P<arguments>\{.*?\})\s*(?:```)?\s*<｜tool▁call▁end｜>",
    re.DOTALL,
)


def read_deepseek(text: str) -> list[Call] | None:
    calls = []
    for match in _DEEPSEEK_CALL.finditer(text):
        arguments = _object(match["arguments"])
        if arguments is None:
            return None
        calls.append((match["name"].strip(), arguments))
    return calls or None


_JSON_NAMES: Final = {"true": True, "false": False, "null": None}


def read_python(text: str) -> list[Call] | None:
    """A list of calls as Python writes them, `[weather(city="Paris")]`, their arguments all literals."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text.strip(), mode="eval").body
        calls = [_python_call(one) for one in tree.elts] if isinstance(tree, ast.List) else []
        msgspec.json.encode(calls)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    return calls or None


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with named arguments")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        value = keyword.value
        known = isinstance(value, ast.Name) and value.id in _JSON_NAMES
        arguments[keyword.arg] = _JSON_NAMES[value.id] if known else ast.literal_eval(value)  # type: ignore[attr-defined]
    return ast.unparse(node.func), arguments


def as_declared(arguments: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Read what was written as text where the tool wants something else: XML knows no numbers."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return arguments
    return {name: _as_declared(value, properties.get(name)) for name, value in arguments.items()}


def _as_declared(value: Any, schema: Any) -> Any:
    declared = schema.get("type") if isinstance(schema, dict) else None
    kinds = declared if isinstance(declared, list) else [declared]
    if not isinstance(value, str) or declared is None or "string" in kinds:
        return value
    documents = _documents(value)
    return documents[0] if documents is not None and len(documents) == 1 else value
