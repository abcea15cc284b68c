"""A template as a tree: what is written, what is decided, and what is computed."""

from dataclasses import dataclass

Const = str | int | float | bool | None


@dataclass(frozen=True)
class Constant:
    value: Const


@dataclass(frozen=True)
class Dot:
    """What a `range` or `with` stands at; at the top all that is given."""


@dataclass(frozen=True)
class Variable:
    name: str
    """Without its dollar; empty: all that is given."""


@dataclass(frozen=True)
class Field:
    of: "Expression"
    name: str


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple["Expression", ...]
    """A value that comes through a pipe is the last of them, as in Go."""


Expression = Constant | Dot | Variable | Field | Call


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Pipe:
    line: int
    value: Expression
    variables: tuple[str, ...] = ()
    """What the value is given to; of a `range` the last is the element, one before it the index or key."""
    declares: bool = False
    """`:=` makes a variable of the enclosing block, `=` sets one that is there."""


@dataclass(frozen=True)
class Action:
    pipe: Pipe


@dataclass(frozen=True)
class If:
    pipe: Pipe
    then: "Body"
    otherwise: "Body" = ()


@dataclass(frozen=True)
class With:
    pipe: Pipe
    then: "Body"
    otherwise: "Body" = ()


@dataclass(frozen=True)
class Range:
    pipe: Pipe
    then: "Body"
    otherwise: "Body" = ()
    """Where there is nothing to go through."""


@dataclass(frozen=True)
class Leave:
    word: str
    """`break` or `continue`."""


@dataclass(frozen=True)
class UnlessLast:
    """What follows the answer of a turn: the last turn's is the model's to write, and ends the prompt."""

    body: "Body"


Node = Text | Action | If | With | Range | Leave | UnlessLast
Body = tuple[Node, ...]
