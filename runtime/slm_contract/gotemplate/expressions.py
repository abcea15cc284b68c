"""Values: from Go's to Jinja's, with what is known of their shape."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from slm_contract.gotemplate.errors import TemplateRefused
from slm_contract.gotemplate.nodes import Call, Constant, Dot, Expression, Field, Variable
from slm_contract.gotemplate.shapes import ANY, NOTHING, NUMBER, TEXT, TRUTH, Shape

_COMPARISONS: Final = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_VERB: Final = re.compile(r"%(.)?", re.DOTALL)
_JSON: Final = 'tojson(separators=(",", ":"))'
_SORTED_JSON: Final = 'tojson(sort_keys=true, separators=(",", ":"))'


@dataclass(frozen=True)
class Value:
    text: str
    """Jinja, safe to be put beside any operator."""
    shape: Shape
    truth: bool | None = None
    """Where it is the same for every conversation."""


@dataclass(frozen=True)
class Scope:
    """What names stand for at a place of the template."""

    line: int
    dot: Value
    root: Value
    variables: Mapping[str, Value]

    def value(self, expression: Expression) -> Value:
        """Translate.

        Raises
        ------
        TemplateRefused
        """
        value = self._of(expression)
        if value is self.root:
            self._refuse("all that a conversation has is no value of its own")
        return value

    def _of(self, expression: Expression) -> Value:
        match expression:
            case Constant(value):
                return _constant(value)
            case Dot():
                return self.dot
            case Variable(""):
                return self.root
            case Variable(name):
                return self.variables.get(name) or self._refuse(f"${name} is declared nowhere above")
            case Field(of, name):
                return self._field(self._of(of), name)
            case Call(function, arguments):
                return self._call(function, [self.value(each) for each in arguments])

    def _field(self, of: Value, name: str) -> Value:
        if of.shape.kind == "object":
            if name not in of.shape.fields:
                self._refuse(f"{of.shape.name}.{name} is nothing that a conversation has")
            text, shape = of.shape.fields[name]
            said = text.format(of.text)
            return Value(said, shape, False if said == '""' else None)
        if of.shape.kind not in {"map", "any"}:
            self._refuse(f".{name} is asked of a {of.shape.kind}")
        return Value(f"{of.text}[{quoted(name)}]", of.shape.element or ANY)

    def _call(self, function: str, given: list[Value]) -> Value:
        if function in _COMPARISONS:
            return self._comparison(function, given)
        make = _FUNCTIONS.get(function)
        if make is None:
            self._refuse(f"the function {function!r} has no counterpart")
        try:
            return make(self, given)
        except TemplateRefused:
            raise
        except (IndexError, ValueError):
            self._refuse(f"{function!r} is given too few or too many values")

    def _comparison(self, function: str, given: list[Value]) -> Value:
        if len(given) < 2 or (len(given) > 2 and function != "eq"):
            self._refuse(f"{function!r} is given too few or too many values")
        first, *others = given
        if len(others) == 1:
            return Value(f"({first.text} {_COMPARISONS[function]} {others[0].text})", TRUTH)
        return Value(f"({first.text} in [{', '.join(each.text for each in others)}])", TRUTH)

    def formatted(self, given: list[Value]) -> Value:
        """`printf`, as far as texts and whole numbers go."""
        layout, *values = given
        if not layout.text.startswith('"'):
            self._refuse("'printf' needs its layout as a constant")
        verbs = [verb for verb in _VERB.findall(layout.text) if verb != "%"]
        if set(verbs) - {"s", "v", "d"} or len(verbs) != len(values):
            self._refuse("'printf' is understood with %s, %v and %d, and a value for each")
        arguments = "".join(f", {shown(each)}" for each in values)
        text = layout.text.replace("%v", "%s")
        return Value(f"({text} | format({arguments[2:]}))", TEXT) if values else Value(text, TEXT)

    def printed(self, given: list[Value]) -> Value:
        """`print` without Go's rules of where a space comes between."""
        if any(each.shape.kind != "text" for each in given):
            self._refuse("'print' is understood of texts alone")
        return Value(f"({' ~ '.join(each.text for each in given)})" if given else '""', TEXT)

    def require_no_text(self, function: str, value: Value) -> None:
        if value.shape.kind == "text":
            self._refuse(f"{function!r} of a text counts bytes, and has no counterpart")

    def _refuse(self, why: str) -> NoReturn:
        raise TemplateRefused(self.line, why)


def quoted(text: str) -> str:
    """A text constant of Jinja's."""
    return json.dumps(text, ensure_ascii=True) if text.isascii() else json.dumps(text, ensure_ascii=False)


def shown(value: Value) -> str:
    """What is written where a value stands alone: texts as they are, structures as JSON."""
    match value.shape.kind:
        case "text" | "number":
            return value.text
        case "truth":
            return f'("true" if {value.text} else "false")'
        case "any":
            return f"({value.text} if {value.text} is string else {value.text} | {_JSON})"
        case "nothing":
            return '""'
        case _:
            return _as_json(value)


def _as_json(value: Value) -> str:
    # Go sorts the keys of a map; those of what a client has sent as an object stay as they came.
    arguments = value.shape.kind == "map" and value.shape.element is ANY
    return f"({value.text} | {_SORTED_JSON if arguments else _JSON})"


def _constant(value: object) -> Value:
    match value:
        case None:
            return Value("none", NOTHING, truth=False)
        case bool():
            return Value("true" if value else "false", TRUTH, truth=value)
        case str():
            return Value(quoted(value), TEXT, truth=bool(value))
        case _:
            text = str(value)
            return Value(f"({text})" if text.startswith("-") else text, NUMBER, truth=bool(value))


def _all(word: str) -> Callable[[Scope, list[Value]], Value]:
    def joined(_: Scope, given: list[Value]) -> Value:
        shape = given[0].shape if all(each.shape == given[0].shape for each in given) else ANY
        return Value(f"({f' {word} '.join(each.text for each in given)})", shape)

    return joined


def _not(_: Scope, given: list[Value]) -> Value:
    (value,) = given
    return Value(f"(not {value.text})", TRUTH, None if value.truth is None else not value.truth)


def _length(_: Scope, given: list[Value]) -> Value:
    (value,) = given
    return Value(f"({value.text} | length)", NUMBER)


def _index(scope: Scope, given: list[Value]) -> Value:
    value, *places = given
    scope.require_no_text("index", value)
    for place in places:
        value = Value(f"{value.text}[{place.text}]", value.shape.element or ANY)
    return value


def _slice(scope: Scope, given: list[Value]) -> Value:
    value, *bounds = given
    scope.require_no_text("slice", value)
    if len(bounds) > 2:
        raise ValueError
    first, last = (*(each.text for each in bounds), "", "")[:2]
    return Value(f"{value.text}[{first}:{last}]", value.shape)


def _json(_: Scope, given: list[Value]) -> Value:
    (value,) = given
    return Value(_as_json(value), TEXT)


def _today(_: Scope, given: list[Value]) -> Value:
    del given  # a layout, of which Ollama takes no notice
    return Value('strftime_now("%Y-%m-%d")', TEXT)


_FUNCTIONS: Final[Mapping[str, Callable[[Scope, list[Value]], Value]]] = {
    "and": _all("and"),
    "or": _all("or"),
    "not": _not,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "printf": Scope.formatted,
    "print": Scope.printed,
    "json": _json,
    "currentDate": _today,
}
