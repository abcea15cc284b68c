"""What an engine that is driven step by step implements. The scheduler knows engines only through this.

The engine keeps key/value state for numbered sequences. The scheduler decides which tokens enter which
sequence in which step, and shares, cuts and frees sequences by number; it never asks for more than
`Capabilities` allow.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
"""As of Output."""

Tokens: TypeAlias = "array[int]"
"""Type code `i`: token ids that numpy can view without copying."""


TOKENIZING_STACK_BYTES: Final = 32 << 20
"""Of a thread that tokenizes, since native tokenizers recurse. Memory is taken for what is used of it only."""


class EngineFault(Exception):
    """The engine can't go on: the process must end and be started anew."""


class NoCells(Exception):  # a state to react to, not a fault
    """The step found no room for its tokens. Nothing has changed; a smaller one may succeed."""


class Unfinished(Exception):  # likewise
    """The step went into work that it isn't through with, as what a medium is encoded to. Others may have their turn."""


class MediumFailed(Exception):
    """The medium of the step can't be encoded; nothing else is wrong."""


class MediumInvalid(Exception):
    """What was sent is no medium that the engine can read. A sentence for people."""


class Output(Enum):
    """What the rows of a step are."""

    LOGITS = auto()
    """What the model thinks of the token after: shape (rows, vocabulary)."""
    HIDDEN_STATES = auto()
    """The last ones: shape (rows, embedding length). They are asked of all tokens of a span."""


class Pooling(Enum):
    """What a model was trained to have as the vector of a text."""

    MEAN = auto()
    """Of the hidden states of its tokens."""
    LAST = auto()
    """The hidden state of its last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSizes:
    """Bytes that a snapshot takes."""

    fixed: int
    token: int
    """Of each."""
    window_token: int = 0
    """Of each of the last ones, `window` of them."""
    window: int = 0

    def of(self, length: int) -> int:
        return self.fixed + self.token * length + self.window_token * min(length, self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the scheduler may ask of an engine."""

    context_length: int
    """Positions that one sequence can hold."""
    rows: int
    """Sequences in one step, so also rows of logits; only the numbers below this can be in a step."""
    sequences: int
    """Sequence numbers: 0 to sequences - 1; those that aren't in a step may be kept for their prefix."""
    step_tokens: int
    """Tokens in one step."""
    cells: int | None
    """Positions that all sequences share, a copied prefix counted once; None: each has a row of its own."""
    cell_unit: int = 1
    """Of `cells`: those of a sequence are placed, and computed fastest, in units of so many, while there are whole ones."""
    embedding_tokens: int = 0
    """Rows of hidden states that one step can give; 0: there are no embeddings."""
    pooling: Pooling = Pooling.MEAN
    scored_tokens: int = 0
    """Rows of logits that one step can give beyond one a sequence; 0: the engine scores no prompts."""
    draft_rows: int = 0
    """Rows of logits that one step can give where sequences have more than one, for tokens that were only guessed; 0: none
    has. What was guessed wrong is cut."""
    mixed: bool = True
    """Prompts and single tokens go together in one step."""
    prefill_rows: int | None = None
    """Sequences with more than one token in a step; None: as many as `rows`."""
    prompt_grain: int = 1
    """Prompt tokens cost least in multiples of so many."""
    prefix_copy: bool = True
    partial_removal: bool = True
    """A sequence can be cut anywhere; False: only freed, copied whole, or saved as it is (recurrent and hybrid models, and
    those that keep no more than a sliding window)."""
    snapshots: SnapshotSizes | None = None
    """None: nothing can be saved."""
    snapshot_room: int = 0
    """Bytes of all snapshots together."""
    adapters: int = 0
    """Sets of weights beside the model's own: a step goes through one of them, or none."""
    media: bool = False
    """Images can be part of a prompt. They don't go into one step with tokens."""
    whole_media: bool = False
    """All positions of a medium go into one step, since each of them sees all others."""

    @property
    def generates(self) -> bool:
        return True

    @property
    def embeds(self) -> bool:
        return self.embedding_tokens > 0

    @property
    def scores(self) -> bool:
        """Whether it tells log probabilities of prompts."""
        return self.scored_tokens > 0

    @property
    def ranks(self) -> bool:
        """Whether it says how well two texts fit together."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCapabilities:
    """What may be asked of an encoder."""

    context_length: int
    """Tokens of one input."""
    inputs: int
    """In one step."""
    step_tokens: int
    """Tokens in one step that holds more than one input."""
    ranks: bool
    """An input is a pair of texts, and its row their score; else a text and its vector."""

    adapters: int = 0
    snapshot_room: int = 0
    media: bool = False

    @property
    def generates(self) -> bool:
        return False

    @property
    def embeds(self) -> bool:
        return not self.ranks

    @property
    def scores(self) -> bool:
        return False


class Encodable(Protocol):
    """What an engine makes the hidden states of a medium's positions from."""

    @property
    def ready(self) -> bool:
        """It is encoded: a step takes it in at once; else steps work on that first, and are Unfinished."""
        ...

    @property
    def size(self) -> int:
        """Bytes that it takes of memory before it is encoded."""
        ...


@dataclass(frozen=True, slots=True)
class Medium:
    """Positions of a sequence that hold no tokens, but an image or a part of one.

    In the sequence's tokens there are numbers in their place that no token has: negative ones, which follow from the
    content, so that whatever compares prompts compares pictures too.
    """

    start: int
    length: int
    content: Encodable

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence in one step; they follow what the sequence already holds."""

    sequence: int
    position: int
    tokens: Tokens
    rows: int = 0
    """Its last so many tokens give a row each."""
    adapter: int = 0
    """What its tokens go through, counted from 1; 0: the model alone. It is the same in all spans of a step, and in all
    steps of a sequence."""
    medium: Medium | None = None
    """What its tokens stand for: a medium of which they are a part. All spans of a step have one, or none has."""


class Vocabulary(Protocol):
    """The model's tokens. Its methods may be called from another thread than the one that steps."""

    @property
    def size(self) -> int: ...

    @property
    def bos(self) -> int | None: ...

    @property
    def eos(self) -> int | None: ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """All tokens that end a generation."""
        ...

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Without any token that the text doesn't have. The thread has a stack of TOKENIZING_STACK_BYTES."""
        ...

    def add_special(self, tokens: list[int]) -> list[int]:
        """Put the model's own tokens around a prompt (BOS and the like), unless they are there already."""
        ...

    def add_special_to_pair(self, first: list[int], second: list[int]) -> list[int]:
        """Put the model's own tokens around two texts and between them."""
        ...

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes that a token stands for; of a special one only if asked."""
        ...

    def is_special(self, token: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class MediumPart:
    """A medium, or a part of one, that is yet to be given its place."""

    tokens: list[int]
    """The numbers that stand for its positions."""
    content: Encodable


class MediaReader(Protocol):
    """What images become in a prompt. Its methods may be called from another thread than the one that steps."""

    def read(self, data: bytes) -> list[list[int] | MediumPart]:
        """Take a file apart: what is to be encoded, and tokens around that, as the model was trained with them.

        Raises MediumInvalid.
        """
        ...


class Engine(Protocol):
    """One loaded model. All methods belong to the thread that steps, but for those of `vocabulary` and `media`."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def media(self) -> MediaReader | None: ...

    def step(self, spans: Sequence[Span], output: Output = Output.LOGITS) -> Rows:
        """Take the spans in and return the rows that they want, in their order.

        The rows belong to the engine; they may be written to, and hold until the next step.
        Raises NoCells, Unfinished, MediumFailed, or EngineFault.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target`, which is empty, hold the first `length` positions of `source` too."""
        ...

    def cut(self, sequence: int, length: int) -> None:
        """Keep the first `length` positions only; 0 frees the sequence."""
        ...

    def save(self, sequence: int, snapshot: int) -> None:
        """Keep a copy of what `sequence`, which can be in a step, holds, under a number that is free."""
        ...

    def restore(self, snapshot: int, sequence: int) -> None:
        """Let `sequence`, which is empty and can be in a step, hold what was saved."""
        ...

    def forget(self, snapshot: int) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Encoder(Protocol):
    """A loaded model that reads its inputs whole and keeps nothing of them. Threads as of Engine."""

    @property
    def capabilities(self) -> EncoderCapabilities: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def encode(self, inputs: Sequence[Tokens]) -> Rows:
        """Return a row for each input, in their order: its vector as the model was trained for it, or its score.

        Raises EngineFault.
        """
        ...

    def close(self) -> None: ...
