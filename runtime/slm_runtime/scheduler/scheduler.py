"""The state machine: who runs, and what goes into the next step."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple

from slm_runtime.engine.protocol import Capabilities, Span, Tokens
from slm_runtime.scheduler.pace import SIZES, Pace
from slm_runtime.scheduler.plan import Plan, Sequence, Wanted, tokens_of
from slm_runtime.scheduler.residents import Residents, common_prefix
from slm_runtime.scheduler.waiting import FairQueue

_WORTH_SHARING: Final = 32
"""Tokens: a prefix that another is about to compute is waited for if it spares at least these, and so it is saved."""

_OLDEST_TURN: Final = 4
"""Of steps that take few prompts, each so many-th has the oldest."""

_NOTHING: Final = tokens_of([])

_SEQUENCE_BYTES: Final = 1024
_TOKEN_BYTES: Final = 4

_PROMPT_WEIGHT: Final = 1
_GENERATED_WEIGHT: Final = 2
"""What a token counts for in fairness between clients."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Of prompts that come in while others generate: the pace of these against the newcomers' first tokens."""

    mixed_seconds: float = 0.45
    """What a step that takes in prompts should last."""
    mixed_tokens: int = 128
    """Prompt tokens in the first such step; those after it follow from what the one before took."""
    fewest_mixed_tokens: int = 32
    longest_seconds: float = 30.0
    """What any step may last: so long a slow engine gives no sign of life."""
    adapter_seconds: float = 0.1
    """How long steps of one adapter follow each other before others have their turn: the change itself takes a while (12 ms
    of CPU in llama.cpp, which plans its memory anew; a step of a small model takes as long)."""


class _Kind(NamedTuple):
    """What goes together in one step; those of different kinds take turns."""

    adapter: int
    wanted: Wanted
    prompt: bool
    """Where prompts and single tokens don't mix."""
    media: bool
    """What goes in next is an image's, or a part of one."""


class Scheduler:
    """Plans steps: `plan`, then `advance` and what has ended `finish`ed; or `retreat` and another `plan`."""

    def __init__(self, capabilities: Capabilities, policy: Policy | None = None) -> None:
        self._capabilities = capabilities
        self._policy = policy or Policy()
        self._residents = Residents(capabilities)
        self._waiting: FairQueue[Sequence] = FairQueue()
        self._running: list[Sequence] = []
        """In the order of arrival, which is also that of `arrival`."""
        self._arrivals = 0
        self._step_tokens = capabilities.step_tokens
        self._mixed_tokens = self._in_grains(self._policy.mixed_tokens)
        self._bearable_tokens = self._mixed_tokens
        """Prompt tokens that a step takes in within the longest time, at the pace of the one before."""
        self._mixing = False
        """The step that was planned last is for prompts while others generate."""
        self._whole_tokens = {
            Wanted.HIDDEN_STATES: capabilities.embedding_tokens,
            Wanted.LOGITS: capabilities.scored_tokens,
        }
        """In one step, of sequences of which each token's own is wanted."""
        adapters = range(capabilities.adapters + 1)
        self._turns = [_Kind(*kind) for kind in product(adapters, Wanted, (True, False), (True, False))]
        """Whose step was longest ago comes first."""
        self._adapter = 0
        """Of the last step."""
        self._adapter_seconds = 0.0
        """For how long that has been so."""
        self._short = False
        """Since the last step that was carried out, one was not: nobody new comes in, and nothing is guessed."""
        self._pace = Pace()
        self._drafted = 0
        """Tokens of the step planned last that are guesses."""
        self._selections = 0
        """Of prompts, where an engine doesn't take all at once."""
        self.preemptions = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def requests_running(self) -> int:
        """Requests of which at least one sequence runs."""
        return len({each.request for each in self._running})

    @property
    def waiting(self) -> int:
        """Requests of which nothing runs, however many sequences each is made of."""
        return len({s.request for s in self._waiting} - {s.request for s in self._running})

    @property
    def waiting_bytes(self) -> int:
        """About what the sequences that wait take of memory."""
        tokens = {id(s.tokens): len(s.tokens) for s in self._waiting}
        media = {id(each.content): each.content.size for s in self._waiting for each in s.media}
        return (
            _SEQUENCE_BYTES * len(self._waiting) + _TOKEN_BYTES * sum(tokens.values()) + sum(media.values())
        )

    @property
    def cells_used(self) -> int:
        return self._residents.used

    @property
    def cells_cached(self) -> int:
        return self._residents.cached

    def submit(self, sequence: Sequence) -> None:
        """Put it into the queue. Its tokens and limit must fit into the context; others may share them until it runs."""
        shortest = len(sequence.tokens) + sequence.generates
        if not shortest <= sequence.limit <= self._capabilities.context_length or not sequence.tokens:
            raise ValueError(
                f"{len(sequence.tokens)} tokens that end at {sequence.limit} don't fit into "
                f"{self._capabilities.context_length}"
            )
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self._waiting.push(sequence.client, sequence, sequence.request)

    def remove(self, unwanted: Callable[[Sequence], bool]) -> list[Sequence]:
        """Take out, wherever they are, all of which `unwanted` is true. Their cells are free at once."""
        removed = self._waiting.remove(unwanted)
        for sequence in [s for s in self._running if unwanted(s)]:
            self.finish(sequence)
            removed.append(sequence)
        return removed

    def plan(self) -> Plan:
        """The next step; without spans if there is nothing to do."""
        if not self._short:
            self._admit()
        while True:
            chosen = self._choose()
            if self._make_room(chosen) or not self._give_way():
                break
        started = [sequence for sequence, _ in chosen if not sequence.started]
        for sequence in started:
            sequence.started = True
        drafts = self._draft(chosen)
        self._drafted = sum(map(len, drafts))
        return Plan(
            operations=self._residents.take_operations(),
            spans=[
                self._span(sequence, count, draft)
                for (sequence, count), draft in zip(chosen, drafts, strict=True)
            ],
            sequences=[sequence for sequence, _ in chosen],
            drafts=drafts,
            started=started,
            wanted=chosen[0][0].wanted if chosen else Wanted.NEXT_TOKEN,
        )

    def advance(self, plan: Plan, seconds: float) -> None:
        """The step was carried out, and took so long."""
        self._step_tokens = self._capabilities.step_tokens
        self._short = False
        self._adapter_seconds += seconds
        self._learn(plan, seconds)
        if plan.wanted is Wanted.NEXT_TOKEN and all(sequence.remaining == 1 for sequence in plan.sequences):
            self._pace.saw(_streams(plan.sequences), self._drafted, seconds)
        for span, sequence in zip(plan.spans, plan.sequences, strict=True):
            count = len(span.tokens)
            generated = span.position >= sequence.prompt_tokens
            self._residents.grow(sequence.placed, count)
            if sequence.computed in sequence.borders:
                self._residents.save(sequence.placed)
            self._waiting.charge(
                sequence.client, count * (_GENERATED_WEIGHT if generated else _PROMPT_WEIGHT)
            )

    def retreat(self) -> bool:
        """The step found no cells: free some, or ask for less, so that the next plan is another one.

        False: one sequence is left, with one token, and nothing kept; there is nothing to give.
        """
        self._short = True
        if self._drafted:
            return True
        return self._residents.evict() or self._give_way()

    def verified(self, sequence: Sequence) -> None:
        """What came true of its draft is among its tokens, with the one after it: the engine forgets the rest."""
        self._residents.shorten(sequence.placed, len(sequence.tokens) - 1)

    def finish(self, sequence: Sequence) -> None:
        """It has ended; what the engine holds of it may serve others."""
        self._running.remove(sequence)
        self._short = False
        self._waiting.finish(sequence.client)
        if sequence.resident is not None:
            self._residents.shorten(sequence.resident, len(sequence.tokens))
            if sequence.wanted is Wanted.HIDDEN_STATES:
                # No prompt begins with a text that was embedded: kept, thousands of them would drive out what is of use.
                self._residents.drop(sequence.resident)
            else:
                self._residents.keep(sequence.resident)
            sequence.resident = None

    def _learn(self, plan: Plan, seconds: float) -> None:
        """Adjust how much of prompts goes into a step, above all into one in which others generate."""
        taken = sum(
            len(span.tokens)
            for span, draft in zip(plan.spans, plan.drafts, strict=True)
            if not draft and (len(span.tokens) > 1 or not span.rows)
        )
        if taken:
            bearable = taken / max(seconds, 1e-6) * self._policy.longest_seconds
            self._bearable_tokens = max(1, round(min(bearable, self._capabilities.step_tokens)))
        if not self._mixing or taken < self._mixed_tokens:
            return
        ratio = min(max(self._policy.mixed_seconds / max(seconds, 1e-6), 0.5), 2.0)
        self._mixed_tokens = self._in_grains(
            max(round(self._mixed_tokens * ratio), self._policy.fewest_mixed_tokens)
        )

    def _in_grains(self, tokens: int) -> int:
        grain = self._capabilities.prompt_grain
        return min(max(tokens // grain, 1) * grain, self._capabilities.step_tokens)

    def _admit(self) -> None:
        rows, cells = self._capabilities.rows, self._capabilities.cells
        while len(self._running) < rows and (head := self._waiting.peek()) is not None:
            name, sequence = head
            promised = sum(len(s.tokens) + 1 for s in self._running)
            if self._running and cells is not None and promised + len(sequence.tokens) + 1 > cells:
                return
            self._waiting.pop(name)
            if sequence.generates and not sequence.started:
                sequence.tokens = sequence.tokens[:]
            self._running.append(sequence)
            self._running.sort(key=lambda s: s.arrival)

    def _choose(self) -> list[tuple[Sequence, int]]:
        """Who takes part, with how many tokens: those of one kind, in turns with those of others."""
        for sequence in self._running:
            if sequence.resident is None:
                self._settle(sequence)
        settled = [s for s in self._running if s.resident is not None]
        if not settled:
            return []
        turn = self._turn({self._kind(s) for s in settled})
        taking_part = [s for s in settled if self._kind(s) == turn]
        if turn.media:
            taking_part = _encoded(taking_part)
        if turn.wanted is Wanted.NEXT_TOKEN:
            return self._choose_generating(
                taking_part, any(s.generates and s.remaining == 1 for s in settled)
            )
        self._mixing = False
        room = min(self._whole_tokens[turn.wanted], self._step_tokens)
        if any(s.generates for s in settled):
            room = min(room, self._mixed_tokens)
        return self._share_out(taking_part, room)

    def _turn(self, present: set[_Kind]) -> _Kind:
        """Which of them has its turn now."""
        same = {kind for kind in present if kind.adapter == self._adapter}
        if same and self._adapter_seconds < self._policy.adapter_seconds:
            present = same
        turn = next(kind for kind in self._turns if kind in present)
        if turn.adapter != self._adapter:
            self._adapter, self._adapter_seconds = turn.adapter, 0.0
        self._turns.remove(turn)
        self._turns.append(turn)
        return turn

    def _kind(self, sequence: Sequence) -> _Kind:
        media = sequence.medium is not None
        prompt = not self._capabilities.mixed and sequence.generates and sequence.remaining > 1
        return _Kind(sequence.adapter, sequence.wanted, prompt, media)

    def _choose_generating(self, sequences: list[Sequence], streaming: bool) -> list[tuple[Sequence, int]]:
        """Single tokens come first. `streaming`: some sequence, one of these or not, waits for its next one."""
        single = [s for s in sequences if s.remaining == 1]
        prompts = [s for s in sequences if s.remaining > 1]
        self._mixing = streaming and bool(prompts)
        room = min(self._step_tokens - len(single), self._bearable_tokens)
        if streaming:
            room = min(room, self._mixed_tokens)
        chosen = [(sequence, 1) for sequence in single[: self._step_tokens]]
        return chosen + self._share_out(prompts, room)

    def _share_out(self, prompts: list[Sequence], room: int) -> list[tuple[Sequence, int]]:
        """Short ones first, for they are soon done; a quarter is the oldest's, so that it gets there too."""
        if not prompts or room <= 0:
            return []
        if self._capabilities.prefill_rows is not None:
            prompts = self._few(prompts, self._capabilities.prefill_rows)
        oldest = min(prompts, key=lambda s: s.arrival)
        reserved = min(oldest.ahead, max(1, room // 4))
        shares: list[tuple[Sequence, int]] = []
        for sequence in sorted(prompts, key=lambda s: (s.remaining, s.arrival)):
            ahead = sequence.ahead
            if sequence is oldest:
                count, reserved = min(ahead, room), 0
            else:
                count = min(ahead, room - reserved)
            if count < ahead and self._capabilities.whole_media and sequence.medium is not None:
                count = 0 if shares else ahead
            if count > 0:
                shares.append((sequence, count))
                room -= count
        return shares

    def _few(self, prompts: list[Sequence], most: int) -> list[Sequence]:
        """Those that go into a step which can't take all: the shortest, and each fourth time the oldest before them."""
        self._selections += 1
        oldest = min(prompts, key=lambda s: s.arrival)
        first = oldest if self._selections % _OLDEST_TURN == 0 else None
        return sorted(prompts, key=lambda s: (s is not first, s.remaining, s.arrival))[:most]

    def _settle(self, sequence: Sequence) -> None:
        """Give it a place in the engine, unless another is about to compute a good part of its prompt."""
        if self._leads(sequence):
            return
        if not sequence.generates:
            # Something of each of its tokens is wanted, so none can be spared.
            sequence.resident = self._residents.open(sequence, 0)
            return
        limit = len(sequence.tokens) - 1
        _, held = self._residents.match(sequence, limit)
        leader, promised = self._best_promise(sequence, limit)
        if leader is not None:
            same_request = leader.request == sequence.request
            if promised - held >= (1 if same_request else _WORTH_SHARING):
                sequence.leader, sequence.leader_length = leader, promised
                if self._residents.saves:
                    leader.borders.add(promised)
                return
        sequence.leader = None
        borders = self._borders(sequence, limit)
        sequence.resident = self._residents.open(sequence, limit)
        sequence.borders |= {
            border for border, worth in borders.items() if border - sequence.computed >= worth
        }
        if not sequence.started:
            sequence.cached_tokens = min(sequence.resident.length, sequence.prompt_tokens)

    def _borders(self, sequence: Sequence, limit: int) -> dict[int, int]:
        """Where others may want what it holds, and nothing can be cut there later; and of how many tokens that is worth it.

        That is the end of its prompt, for another choice or turn, of each picture, for another question about it, and where
        others parted from it before.
        """
        if not self._residents.saves:
            return {}
        known = {self._residents.known(sequence, limit), sequence.whole(sequence.prompt_tokens - 1)}
        return dict.fromkeys(known, _WORTH_SHARING) | {each.end: 1 for each in sequence.media}

    def _leads(self, sequence: Sequence) -> bool:
        """Whether the one that it waits for is still on its way."""
        leader = sequence.leader
        return (
            leader is not None
            and leader.resident is not None
            and leader.resident.running
            and leader.computed < sequence.leader_length
        )

    def _best_promise(self, sequence: Sequence, limit: int) -> tuple[Sequence | None, int]:
        best, length = None, 0
        copies = self._capabilities.prefix_copy and self._capabilities.partial_removal
        if not (copies or self._residents.saves):
            return best, length
        for other in self._running:
            same = other.generates and other.adapter == sequence.adapter
            if same and other.resident is not None and other.remaining > 1:
                common = sequence.whole(common_prefix(other.tokens, sequence.tokens, limit))
                shared = copies or self._residents.can_save(common)
                if shared and common > max(length, other.computed):
                    best, length = other, common
        return best, length

    def _make_room(self, chosen: list[tuple[Sequence, int]]) -> bool:
        """Whole units for their cells while something kept can go for that; single cells do where nothing can."""
        total = self._capabilities.cells
        if total is None:
            return True
        growth = [(sequence.placed, count) for sequence, count in chosen]
        while self._residents.taken_after(growth) > total and self._residents.evict():
            pass
        return self._residents.used + sum(count for _, count in chosen) <= total

    def _draft(self, chosen: list[tuple[Sequence, int]]) -> list[Tokens]:
        """What each of them is guessed to go on with, as far as that pays; nothing while anybody else waits for anything."""
        nothing = [_NOTHING] * len(chosen)
        room = min(self._capabilities.draft_rows, self._step_tokens) - len(chosen)
        if room < 1 or self._short or len(self._waiting):
            return nothing
        if any(not s.generates or s.resident is None or s.remaining > 1 for s in self._running):
            return nothing
        sequences = [sequence for sequence, _ in chosen]
        if all(sequence.drafter is None for sequence in sequences):
            return nothing
        guesses = [self._guess(sequence, min(room, SIZES[-1])) for sequence in sequences]
        if not self._pace.knows(_streams(sequences)):
            return nothing
        sizes = self._pace.best([(len(tokens), likely) for tokens, likely in guesses], room)
        if not any(sizes) or not self._make_room(
            [(sequence, 1 + size) for sequence, size in zip(sequences, sizes, strict=True)]
        ):
            return nothing
        return [tokens[:size] for (tokens, _), size in zip(guesses, sizes, strict=True)]

    def _guess(self, sequence: Sequence, most: int) -> tuple[Tokens, float]:
        # With each step comes one token more than was guessed right.
        most = min(most, sequence.limit - len(sequence.tokens) - 1)
        if sequence.drafter is None or most < 1:
            return _NOTHING, 0.0
        return sequence.drafter.guess(sequence.tokens, most)

    def _give_way(self) -> bool:
        """Stop the youngest and let it wait again, with what it has; alone, it goes on in smaller steps."""
        placed = [s for s in self._running if s.resident is not None]
        if len(placed) <= 1:
            smaller = max(1, self._step_tokens // 2)
            changed, self._step_tokens = smaller != self._step_tokens, smaller
            return changed
        youngest = max(placed, key=lambda s: s.arrival)
        self._residents.drop(youngest.placed)
        youngest.resident = None
        self._running.remove(youngest)
        self._waiting.push_front(youngest.client, youngest, youngest.request)
        self.preemptions += 1
        return True

    @staticmethod
    def _span(sequence: Sequence, count: int, draft: Tokens) -> Span:
        return Span(
            sequence=sequence.placed.number,
            position=sequence.computed,
            tokens=sequence.next_tokens(count) + draft,
            rows=(count == sequence.remaining) + len(draft) if sequence.generates else count,
            adapter=sequence.adapter,
            medium=sequence.medium,
        )


def _encoded(sequences: list[Sequence]) -> list[Sequence]:
    """Those whose medium needs only to be taken in; where there is none, one whose medium is to be encoded first."""
    ready = [s for s in sequences if s.medium is not None and s.medium.content.ready]
    return ready or [min(sequences, key=lambda s: (s.remaining, s.arrival))]


def _streams(sequences: list[Sequence]) -> tuple[int, ...]:
    return tuple(sequence.arrival for sequence in sequences)
