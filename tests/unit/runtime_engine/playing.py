"""A deterministic engine with real key/value semantics: what comes next depends on every token that a sequence holds.

It checks what the scheduler may get wrong: positions that don't follow, numbers out of range, more cells, rows or tokens
than it has, copies onto what isn't empty, cuts where it can't cut, what went through one adapter used for another,
snapshots of what can't be saved, that nobody saved, or of more bytes than there is room for.
"""

import zlib
from array import array
from collections.abc import Callable, Sequence

import numpy as np

from slm_runtime.engine.protocol import Capabilities, NoCells, Output, Rows, Span, Unfinished

LETTERS = 61
VOCABULARY = 66
END = 2


class Letters:
    """0 to 2 are special, then come letters, and two that nothing makes."""

    size = VOCABULARY
    bos: int | None = 1
    eos: int | None = END
    end_tokens = frozenset({END})

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        return [3 + byte % LETTERS for byte in text.encode()]

    def add_special(self, tokens: list[int]) -> list[int]:
        return tokens if tokens[:1] == [1] else [1, *tokens]

    def add_special_to_pair(self, first: list[int], second: list[int]) -> list[int]:
        return [1, *first, END, *second]

    def piece(self, token: int, *, special: bool) -> bytes:
        if self.is_special(token):
            return f"<{token}>".encode() if special else b""
        return bytes([32 + token])

    def is_special(self, token: int) -> bool:
        return token < 3


def row_of(held: Sequence[int], adapter: int = 0) -> Rows:
    row = np.zeros(VOCABULARY, np.float32)
    row[next_token(held, adapter)] = 1
    return row


def next_token(held: Sequence[int], adapter: int = 0) -> int:
    """Never the end token: how long an answer is, is the tests' to say."""
    return 3 + zlib.crc32(array("i", held).tobytes(), adapter) % LETTERS


class PlayedPicture:
    """Takes so many steps to be encoded."""

    size = 100

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    @property
    def ready(self) -> bool:
        return self.steps == 0


class PlayedEngine:
    """See Engine. `refuse` says of each step whether it finds no cells, whatever the account says."""

    def __init__(self, capabilities: Capabilities, refuse: Callable[[], bool] = lambda: False) -> None:
        self.capabilities = capabilities
        self.vocabulary = Letters()
        self.media = None
        self.held: dict[int, list[tuple[int, int]]] = {}
        """By sequence: its cells, each an identity and a token."""
        self.made: dict[int, int] = {}
        """By sequence: the adapter that all of it went through."""
        self.saved: dict[int, tuple[list[int], int]] = {}
        """By snapshot: its tokens, and the adapter that they went through."""
        self.steps: list[list[Span]] = []
        self._refuse = refuse
        self._cells = 0

    @property
    def cells_used(self) -> int:
        if self.capabilities.cells is None:
            return sum(len(cells) for cells in self.held.values())
        return len({identity for cells in self.held.values() for identity, _ in cells})

    def step(self, spans: Sequence[Span], output: Output = Output.LOGITS) -> Rows:
        """A hidden state is the token's number and its place."""
        can = self.capabilities
        if output is Output.HIDDEN_STATES:
            assert all(span.rows == len(span.tokens) for span in spans)
            assert sum(span.rows for span in spans) <= can.embedding_tokens
        else:
            assert sum(span.rows for span in spans if span.rows > 1) <= can.scored_tokens
        assert spans
        assert len({span.sequence for span in spans}) == len(spans) <= can.rows
        assert sum(len(span.tokens) for span in spans) <= can.step_tokens
        assert len({span.adapter for span in spans}) == 1
        assert 0 <= spans[0].adapter <= can.adapters
        self._look_at(spans)
        drafted = [span for span in spans if span.rows > 1]
        if (
            output is Output.LOGITS
            and can.draft_rows
            and all(span.rows == len(span.tokens) for span in spans)
        ):
            assert not drafted or sum(span.rows for span in spans) <= can.draft_rows
            prompts = []
        else:
            prompts = [span for span in spans if len(span.tokens) > 1 or not span.rows]
        assert can.prefill_rows is None or len(prompts) <= can.prefill_rows
        assert can.mixed or not prompts or len(prompts) == len(spans)
        new = sum(len(span.tokens) for span in spans)
        if self._refuse() or (can.cells is not None and self.cells_used + new > can.cells):
            raise NoCells
        self.steps.append(list(spans))
        rows = []
        for span in spans:
            assert 0 <= span.sequence < can.rows
            cells = self.held.setdefault(span.sequence, [])
            assert span.position == len(cells)
            assert not cells or self.made[span.sequence] == span.adapter
            self.made[span.sequence] = span.adapter
            for token in span.tokens:
                cells.append((self._place(cells), token))
            assert len(cells) <= can.context_length
            held = [token for _, token in cells]
            for end in range(len(held) - span.rows + 1, len(held) + 1):
                state = np.array([held[end - 1], end - 1], np.float32)
                rows.append(state if output is Output.HIDDEN_STATES else row_of(held[:end], span.adapter))
        return np.array(rows)

    def _look_at(self, spans: Sequence[Span]) -> None:
        """Media go into steps of their own; what is negative stands for one."""
        assert len({span.medium is None for span in spans}) == 1
        for span in spans:
            assert all((token < 0) == (span.medium is not None) for token in span.tokens)
            if span.medium is not None:
                end = span.position + len(span.tokens)
                assert span.medium.start <= span.position < end <= span.medium.end
                assert not self.capabilities.whole_media or len(span.tokens) == span.medium.length
                if not span.medium.content.ready:
                    assert len(spans) == 1
                    assert isinstance(span.medium.content, PlayedPicture)
                    span.medium.content.steps -= 1
                    raise Unfinished

    def _parted(self, sequence: int, length: int) -> bool:
        """Whether the first so many cells end within a medium: two of them have tokens between them here."""
        around = [token for _, token in self.held.get(sequence, [])[max(0, length - 1) : length + 1]]
        return length > 0 and len(around) == 2 and all(token < 0 for token in around)

    def _place(self, cells: list[tuple[int, int]]) -> int:
        """The identity of the next cell of a sequence that holds these."""
        self._cells += 1
        return self._cells

    def copy(self, source: int, target: int, length: int) -> None:
        assert 0 <= target < self.capabilities.sequences
        assert not self.held.get(target)
        assert self.capabilities.prefix_copy
        assert not self._parted(source, length)
        assert length == len(self.held[source]) or self.capabilities.partial_removal
        cells = self.held[source][:length]
        assert len(cells) == length
        if self.capabilities.cells is None:
            cells = [(-target * 10**6 - place, token) for place, (_, token) in enumerate(cells)]
        self.held[target] = cells
        self.made[target] = self.made[source]

    def cut(self, sequence: int, length: int) -> None:
        assert length == 0 or self.capabilities.partial_removal
        assert length <= len(self.held.get(sequence, []))
        assert not self._parted(sequence, length)
        self.held[sequence] = self.held.get(sequence, [])[:length]

    def save(self, sequence: int, snapshot: int) -> None:
        can = self.capabilities
        assert can.snapshots is not None
        assert 0 <= sequence < can.rows
        assert self.held[sequence]
        assert snapshot not in self.saved
        self.saved[snapshot] = ([token for _, token in self.held[sequence]], self.made[sequence])
        assert sum(can.snapshots.of(len(tokens)) for tokens, _ in self.saved.values()) <= can.snapshot_room

    def restore(self, snapshot: int, sequence: int) -> None:
        can = self.capabilities
        assert 0 <= sequence < can.rows
        assert not self.held.get(sequence)
        tokens, self.made[sequence] = self.saved[snapshot]
        assert can.cells is None or self.cells_used + len(tokens) <= can.cells
        cells: list[tuple[int, int]] = []
        self.held[sequence] = cells
        for token in tokens:
            cells.append((self._place(cells), token))

    def forget(self, snapshot: int) -> None:
        del self.saved[snapshot]

    def close(self) -> None:
        self.held.clear()


class PlacingEngine(PlayedEngine):
    """Its cells have places: those of a sequence lie side by side, in whole units while there are any (`cell_unit`)."""

    scattered = 0
    """Cells that found no whole unit, and went into what others had left of theirs."""

    def _place(self, cells: list[tuple[int, int]]) -> int:
        total, unit = self.capabilities.cells, self.capabilities.cell_unit
        assert total is not None
        held = {place for others in self.held.values() for place, _ in others}
        after = cells[-1][0] + 1 if cells else 0
        if after % unit and after not in held:
            return after
        for start in range(0, total, unit):
            if held.isdisjoint(range(start, start + unit)):
                return start
        self.scattered += 1
        return next(place for place in range(total) if place not in held)
