"""What the scheduler hands out, and what it keeps of each choice of each request."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from slm_runtime.engine.protocol import Engine, Medium, Output, Span, Tokens
from slm_runtime.scheduler.cells import Run
from slm_runtime.scheduler.drafting import Drafter


@dataclass(frozen=True, slots=True)
class Copy:
    """Let the empty sequence `target` hold the first `length` positions of `source`."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Keep the first `length` positions of a sequence; 0 frees it."""

    sequence: int
    length: int


@dataclass(frozen=True, slots=True)
class Save:
    """Keep a copy of what a sequence holds."""

    sequence: int
    snapshot: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Let the empty sequence `target` hold what was saved."""

    snapshot: int
    target: int


@dataclass(frozen=True, slots=True)
class Forget:
    snapshot: int


Operation = Copy | Cut | Save | Restore | Forget


def carry_out(operations: Iterable[Operation], engine: Engine) -> None:
    """In their order. Raises EngineFault."""
    for operation in operations:
        match operation:
            case Copy():
                engine.copy(operation.source, operation.target, operation.length)
            case Cut():
                engine.cut(operation.sequence, operation.length)
            case Save():
                engine.save(operation.sequence, operation.snapshot)
            case Restore():
                engine.restore(operation.snapshot, operation.target)
            case Forget():
                engine.forget(operation.snapshot)


@dataclass(slots=True, eq=False)
class Resident:
    """What the engine holds under one sequence number."""

    number: int
    tokens: Tokens
    """The sequence's own; the first `length` of them are held."""
    adapter: int = 0
    """Through which they went: what another made of the same tokens is something else."""
    length: int = 0
    end: Run | None = None
    running: bool = True
    used: int = 0
    """When it was last of use, on the scheduler's own clock of plans."""


class Wanted(Enum):
    """What a sequence is in a step for; all of one step want the same."""

    NEXT_TOKEN = auto()
    """It generates, from the logits of its last token."""
    HIDDEN_STATES = auto()
    """Of each of its tokens; when these are taken in, it ends."""
    LOGITS = auto()
    """Likewise."""

    @property
    def output(self) -> Output:
        return Output.HIDDEN_STATES if self is Wanted.HIDDEN_STATES else Output.LOGITS


@dataclass(slots=True, eq=False)
class Sequence:
    """One choice of one request, from submission to its end."""

    request: int
    choice: int
    client: str
    tokens: Tokens
    """The prompt, then what was generated."""
    limit: int
    """Tokens, prompt included, at which it must end."""
    wanted: Wanted = Wanted.NEXT_TOKEN
    adapter: int = 0
    """As of Span."""
    media: tuple[Medium, ...] = ()
    """Those in the prompt, in their order."""
    prompt_tokens: int = field(init=False)
    arrival: int = 0
    resident: Resident | None = None
    leader: "Sequence | None" = None
    """Whose prefill it waits for, to share it."""
    leader_length: int = 0
    borders: set[int] = field(default_factory=set)
    """Lengths at which what the engine holds of it is saved: no step takes in more than up to the next one."""
    cached_tokens: int = 0
    """Of the prompt, spared when it first took part."""
    started: bool = False
    """Whether it ever took part in a step."""
    drafter: Drafter | None = None
    """Guesses what comes next; None: it goes token by token."""

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def generates(self) -> bool:
        return self.wanted is Wanted.NEXT_TOKEN

    @property
    def computed(self) -> int:
        return 0 if self.resident is None else self.resident.length

    @property
    def remaining(self) -> int:
        """Tokens that the engine has yet to take in; 1 while it generates."""
        return len(self.tokens) - self.computed

    @property
    def medium(self) -> Medium | None:
        """What the next position is a part of."""
        return self._medium_at(self.computed)

    @property
    def ahead(self) -> int:
        """Of the remaining tokens, those that may go into one step: up to a border, or where a medium begins or ends."""
        computed = self.computed
        borders = (border for each in self.media for border in (each.start, each.end) if border > computed)
        saved = (border for border in self.borders if border > computed)
        return min(len(self.tokens), next(borders, len(self.tokens)), *saved) - computed

    def whole(self, length: int) -> int:
        """So many positions, or fewer: a medium that they would end in is left out."""
        medium = self._medium_at(length)
        return length if medium is None else medium.start

    def _medium_at(self, position: int) -> Medium | None:
        if not self.media or position >= self.media[-1].end:
            return None
        return next((each for each in self.media if each.start <= position < each.end), None)

    @property
    def placed(self) -> Resident:
        """Where the engine holds it; only for a sequence that has such a place."""
        if self.resident is None:
            raise LookupError(f"choice {self.choice} of request {self.request} has no place in the engine")
        return self.resident

    def next_tokens(self, count: int) -> Tokens:
        start = self.computed
        return self.tokens[start : start + count]


def tokens_of(values: list[int]) -> Tokens:
    return array("i", values)


@dataclass(slots=True)
class Plan:
    """Carry out the operations in their order, then step the spans; then `advance`, or `retreat`."""

    operations: list[Operation]
    spans: list[Span]
    sequences: list[Sequence]
    """One for each span."""
    drafts: list[Tokens]
    """One for each span: what its tokens end with that was only guessed. It has a row for the token before, and for each."""
    started: list[Sequence]
    """Those that take part for the first time."""
    wanted: Wanted
    """By each of its sequences."""
