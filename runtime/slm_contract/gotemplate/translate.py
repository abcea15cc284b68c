"""A Modelfile's template as a chat template of the same prompts.

Ollama renders a template that names `.Messages` once; one that doesn't is rendered for each turn of the conversation, and
the last one ends where the answer begins. Before either it joins messages of one role that follow each other. All of this
stands in the translated template, so that whoever renders it needs to know nothing of Go's.

Two things are otherwise: JSON is written as it is, where Go escapes `<`, `>` and `&`; and tools have their keys in the order
in which the client sent them.
"""

from collections.abc import Iterator
from typing import Final

from slm_contract.gotemplate.errors import TemplateRefused
from slm_contract.gotemplate.expressions import Scope, Value, shown
from slm_contract.gotemplate.nodes import (
    Action,
    Body,
    Call,
    Dot,
    Expression,
    Field,
    If,
    Leave,
    Node,
    Pipe,
    Range,
    Text,
    UnlessLast,
    Variable,
    With,
)
from slm_contract.gotemplate.parser import parse
from slm_contract.gotemplate.shapes import ANY, CONVERSATION, NUMBER, TEXT, TURN
from slm_contract.gotemplate.writer import Writer

LIMIT: Final = 64 * 1024
"""Characters that a template may have."""

_JOINED: Final = """\
{% set said = namespace(messages=[]) %}
{% for message in messages %}
{% if said.messages and message.role != "tool" and said.messages[-1].role == message.role %}
{% set said.last = said.messages[-1] %}
{% set said.last = dict(said.last, content=said.last.content ~ "\\n\\n" ~ message.content) %}
{% set said.messages = said.messages[:-1] + [said.last] %}
{% else %}
{% set said.messages = said.messages + [message] %}
{% endif %}
{% endfor %}
"""
_SYSTEM: Final = """\
{% set said.system = messages | selectattr("role", "equalto", "system") | map(attribute="content") | join("\\n\\n") %}
"""
_TURNS: Final = """\
{% set parts = {"system": "system", "user": "prompt", "assistant": "response"} %}
{% set said.turns = [] %}
{% set said.turn = {"system": "", "prompt": "", "response": ""} %}
{% for message in said.messages if message.role in parts %}
{% set begun = said.turn.prompt if message.role == "system" else "" %}
{% if message.role != "assistant" and (said.turn.response or begun) %}
{% set said.turns = said.turns + [said.turn] %}
{% set said.turn = {"system": "", "prompt": "", "response": ""} %}
{% endif %}
{% set said.turn = dict(said.turn, **{parts[message.role]: message.content}) %}
{% endfor %}
"""
_VARIABLES: Final = "{% set v = namespace() %}\n"
_TAKEN: Final = frozenset(
    # What chat templates are given or the translation uses, and words of Jinja's.
    """messages tools said parts turn last loop v message begun enable_thinking reasoning_effort add_generation_prompt
    bos_token eos_token true false none True False None and or not in is if else elif for set import from include macro
    call filter with block namespace dict range strftime_now raise_exception""".split()
)


def translate(template: str) -> str:
    """Write a Jinja chat template over `messages`, `tools` and the switches of reasoning.

    Raises
    ------
    TemplateRefused
        It holds what has no counterpart.
    """
    body = _parsed(template)
    names = {name.casefold() for name in _names(body)}
    if "messages" in names:
        return _Translation(Value("-", CONVERSATION)).chat(body, system="system" in names)
    if "response" not in names:
        body = (*body, Action(Pipe(1, Field(Dot(), "Response"))))
    return _Translation(Value("-", TURN)).turns(_cut(body)[0])


def passes_through(template: str) -> bool:
    """Whether it is nothing but the prompt: what Ollama gives a model of whose template it knows nothing.

    Raises
    ------
    TemplateRefused
    """
    body = _parsed(template)
    shown_names = [name for node in body for name in _names((node,))]
    plain = all(
        isinstance(node, Action) or (isinstance(node, Text) and not node.text.strip()) for node in body
    )
    return plain and shown_names in (["Prompt"], ["Prompt", "Response"])


def _parsed(template: str) -> Body:
    if len(template) > LIMIT:
        raise TemplateRefused(1, f"it is longer than {LIMIT} characters")
    return parse(template)


class _Translation:
    def __init__(self, root: Value) -> None:
        self._root = root
        self._writer = Writer()
        self._taken = set(_TAKEN)
        self._variables: dict[str, Value] = {}
        self._mixed: set[str] = set()
        self._assigned = False

    def chat(self, body: Body, *, system: bool) -> str:
        self._write(body, self._root)
        return _JOINED + (_SYSTEM if system else "") + self._prelude() + self._writer.written()

    def turns(self, body: Body) -> str:
        self._writer.statement("for turn in said.turns + [said.turn]")
        self._writer.statement("set last = loop.last")
        self._write(body, self._root)
        self._writer.statement("endfor")
        return _JOINED + _TURNS + self._prelude() + self._writer.written()

    def _prelude(self) -> str:
        return _VARIABLES if self._assigned else ""

    def _write(self, body: Body, dot: Value) -> None:
        """A block: what is declared in it ends with it."""
        outside = dict(self._variables)
        for node in body:
            self._node(node, dot)
        self._leave(outside)

    def _node(self, node: Node, dot: Value) -> None:
        match node:
            case Text(text):
                self._writer.text(text)
            case Action(pipe) if pipe.variables:
                self._give(pipe, self._value(pipe, dot))
            case Action(pipe):
                value = self._value(pipe, dot)
                if value.text != '""':
                    self._writer.value(shown(value))
            case If() | With():
                self._decide(node, dot)
            case Range():
                self._repeat(node, dot)
            case Leave(word):
                self._writer.statement(word)
            case UnlessLast(body):
                self._writer.statement("if not last")
                self._write(body, dot)
                self._writer.statement("endif")

    def _decide(self, node: If | With, dot: Value) -> None:
        outside = dict(self._variables)
        value = self._value(node.pipe, dot)
        if node.pipe.variables:
            value = self._give(node.pipe, value)
        elif isinstance(node, With) and value.truth is None:
            value = self._keep("it", value)
        inner = value if isinstance(node, With) else dot
        if value.truth is not None:
            self._write(node.then if value.truth else node.otherwise, inner if value.truth else dot)
        else:
            self._writer.statement(f"if {_bare(value.text)}")
            self._write(node.then, inner)
            self._otherwise(node.otherwise, dot)
            self._writer.statement("endif")
        self._leave(outside)

    def _otherwise(self, body: Body, dot: Value) -> None:
        if body:
            self._writer.statement("else")
            self._write(body, dot)

    def _repeat(self, node: Range, dot: Value) -> None:
        pipe, outside = node.pipe, dict(self._variables)
        value = self._value(pipe, dot)
        if value.shape.kind not in {"list", "map", "any"}:
            raise TemplateRefused(
                pipe.line, f"a range goes through a list or a map, and this is a {value.shape.kind}"
            )
        if pipe.variables and not pipe.declares:
            raise TemplateRefused(pipe.line, "a range has no counterpart that sets variables of outside")
        *first, last = pipe.variables or ("each",)
        element = Value(self._free(last), value.shape.element or ANY)
        index = Value(self._free(first[0]), TEXT if value.shape.kind == "map" else NUMBER) if first else None
        if value.shape.kind == "map":
            key = self._free("key") if index is None else index.text
            self._writer.statement(f"for {key}, {element.text} in ({value.text} or {{}}) | dictsort(true)")
        else:
            self._writer.statement(f"for {element.text} in {_bare(value.text)}")
            if index is not None:
                self._writer.statement(f"set {index.text} = loop.index0")
        if pipe.variables:
            self._variables[last] = element
        if index is not None:
            self._variables[first[0]] = index
        self._write(node.then, element)
        self._leave(outside)
        self._otherwise(node.otherwise, dot)
        self._writer.statement("endfor")

    def _give(self, pipe: Pipe, value: Value) -> Value:
        (name,) = pipe.variables
        if pipe.declares:
            self._variables[name] = kept = self._keep(name, value)
            return kept
        there = self._variables.get(name)
        if there is None:
            raise TemplateRefused(pipe.line, f"${name} is declared nowhere above")
        if not there.text.startswith("v."):
            raise TemplateRefused(pipe.line, f"${name} is a range's, and has no counterpart that can be set")
        self._writer.statement(f"set {there.text} = {_bare(value.text)}")
        if there.shape != value.shape:
            self._variables[name] = Value(there.text, ANY)
            self._mixed.add(there.text)
        return self._variables[name]

    def _leave(self, outside: dict[str, Value]) -> None:
        """Back to the variables of outside; what was set to other kinds of values inside stays so."""
        self._variables = {
            name: Value(value.text, ANY) if value.text in self._mixed else value
            for name, value in outside.items()
        }

    def _keep(self, name: str, value: Value) -> Value:
        kept = Value(f"v.{self._free(name)}", value.shape)
        self._assigned = True
        self._writer.statement(f"set {kept.text} = {_bare(value.text)}")
        return kept

    def _value(self, pipe: Pipe, dot: Value) -> Value:
        return Scope(pipe.line, dot, self._root, self._variables).value(pipe.value)

    def _free(self, name: str) -> str:
        wanted = name = name if name.isidentifier() and name.isascii() else "each"
        number = 2
        while wanted in self._taken:
            wanted, number = f"{name}{number}", number + 1
        self._taken.add(wanted)
        return wanted


def _bare(text: str) -> str:
    """Without the parentheses around all of it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") and text.endswith(")") else text


def _names(body: Body) -> Iterator[str]:
    """All that are looked up, as Ollama collects them."""
    for node in body:
        match node:
            case Action(pipe):
                yield from _looked_up(pipe.value)
            case If(pipe, then, otherwise) | With(pipe, then, otherwise) | Range(pipe, then, otherwise):
                yield from _looked_up(pipe.value)
                yield from _names((*then, *otherwise))
            case _:
                pass


def _looked_up(expression: Expression) -> Iterator[str]:
    match expression:
        case Field(of, name):
            yield from _looked_up(of)
            yield name
        case Variable(name):
            yield name
        case Call(_, arguments):
            for each in arguments:
                yield from _looked_up(each)
        case _:
            pass


def _cut(body: Body) -> tuple[Body, bool]:
    """Have what comes after the answer be left out of the last turn; whether there is an answer in it."""
    nodes: list[Node] = []
    for place, node in enumerate(body):
        answers = False
        match node:
            case Action(pipe):
                answers = "Response" in _looked_up(pipe.value)
                nodes.append(node)
            case If(pipe, then, otherwise) | With(pipe, then, otherwise) | Range(pipe, then, otherwise):
                then, answers = _cut(then)
                rest, later = ((UnlessLast(otherwise),), False) if answers and otherwise else _cut(otherwise)
                nodes.append(type(node)(pipe, then, rest))
                answers = answers or later
            case _:
                nodes.append(node)
        if answers:
            following = body[place + 1 :]
            return (*nodes, *((UnlessLast(following),) if following else ())), True
    return tuple(nodes), False
