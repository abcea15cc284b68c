"""One request in the engine process: its choices, their text, and how it ends."""

import logging
from dataclasses import dataclass, field

from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    FinishReason,
    RequestFinished,
    StepOutput,
    Timings,
    TokenLogprobs,
    Usage,
)
from slm_runtime.engine.prepare import Prepared
from slm_runtime.engine.protocol import Rows, Vocabulary
from slm_runtime.sampling.constraint import GrammarMatcher, InvalidConstraint
from slm_runtime.sampling.sampler import Sampler
from slm_runtime.sampling.text import TextStream
from slm_runtime.scheduler.drafting import Drafter
from slm_runtime.scheduler.plan import Sequence

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Choice:
    sequence: Sequence
    text: TextStream
    sampler: Sampler | None = None
    """Made for the first token: what waits needs none."""
    matcher: GrammarMatcher | None = None
    tokens: list[int] = field(default_factory=list)
    """Chosen and not yet sent, like their logprobs: their text is held back."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    completion_tokens: int = 0


class GenerationState:
    """Times are the engine process's monotonic seconds."""

    def __init__(self, prepared: Prepared, vocabulary: Vocabulary, now: float) -> None:
        self.id = prepared.id
        self.request = prepared.request
        self._vocabulary = vocabulary
        self._submitted = now
        self._first_step: float | None = None
        self._first_token: float | None = None
        self._completion_tokens = 0
        self._message: str | None = None
        self._matcher = prepared.matcher
        self._foretold = prepared.foretold
        self._accepted = self._rejected = 0
        sequences = [
            Sequence(
                request=prepared.id,
                choice=index,
                client=prepared.request.client,
                tokens=prepared.tokens,
                limit=prepared.limit,
                adapter=prepared.request.adapter,
                media=prepared.media,
            )
            for index in range(prepared.request.n)
        ]
        self._choices = {each.choice: _Choice(each, TextStream(self.request.stop)) for each in sequences}
        self._first = sequences[0]

    @property
    def sequences(self) -> list[Sequence]:
        """Of the choices that are still open."""
        return [choice.sequence for choice in self._choices.values()]

    @property
    def open(self) -> bool:
        return bool(self._choices)

    def started(self, now: float) -> None:
        if self._first_step is None:
            self._first_step = now

    def choose(self, sequence: Sequence, row: Rows, now: float, output: StepOutput) -> bool:
        """Take the sequence's next token from its row; True if that ended it. What may be shown goes to `output`."""
        choice = self._choices[sequence.choice]
        if self._first_token is None:
            self._first_token = now
        try:
            sampler = choice.sampler or self._begin(choice)
            token, own = sampler.choose(row)
        except InvalidConstraint as error:
            self.end(sequence.choice, "constraint", output, str(error))
            return True
        except Exception as error:
            # One request must not end all others, whatever the model makes of it.
            _log.exception("no token can be chosen for request %d", self.id)
            self.end(sequence.choice, "error", output, f"no token can be chosen: {error}")
            return True
        self._completion_tokens += 1
        choice.completion_tokens += 1
        if own is not None:
            choice.logprobs.append(own)
        request = self.request
        ends = token in self._vocabulary.end_tokens and not request.ignore_eos
        if ends or token in request.stop_tokens:
            self.end(sequence.choice, "stop", output)
            return True
        sequence.tokens.append(token)
        choice.tokens.append(token)
        text, stop = choice.text.push(self._vocabulary.piece(token, special=request.show_special))
        if text:
            self._show(choice, text, output)
        if stop is not None or (choice.matcher is not None and choice.matcher.complete):
            self.end(sequence.choice, "stop", output, stop=stop)
        elif len(sequence.tokens) >= sequence.limit:
            self.end(sequence.choice, "length", output)
        else:
            return False
        return True

    def drafted(self, count: int, accepted: int) -> None:
        """So many tokens were guessed, and so many of them came true."""
        self._accepted += accepted
        self._rejected += count - accepted

    def end(
        self,
        index: int,
        reason: FinishReason,
        output: StepOutput,
        message: str | None = None,
        stop: str | None = None,
    ) -> None:
        """Close a choice; the request ends with its last one."""
        choice = self._choices.pop(index)
        text = choice.text.flush()
        if text or choice.tokens or choice.logprobs:
            self._show(choice, text, output)
        self._message = message or self._message
        output.choices.append(ChoiceFinished(self.id, index, reason, choice.completion_tokens, stop))

    def finish(self, now: float) -> RequestFinished:
        """What is told at the very end."""
        first_step = now if self._first_step is None else self._first_step
        first_token = now if self._first_token is None else self._first_token
        return RequestFinished(
            id=self.id,
            usage=Usage(
                self._first.prompt_tokens,
                self._first.cached_tokens,
                self._completion_tokens,
                self._accepted if self._foretold else 0,
                self._rejected if self._foretold else 0,
            ),
            timings=Timings(first_step - self._submitted, first_token - first_step, now - first_token),
            message=self._message,
        )

    def _show(self, choice: _Choice, text: str, output: StepOutput) -> None:
        logprobs = choice.logprobs or None
        output.deltas.append(Delta(self.id, choice.sequence.choice, text, choice.tokens, logprobs))
        choice.tokens = []
        choice.logprobs = []

    def _begin(self, choice: _Choice) -> Sampler:
        if self._matcher is not None:
            choice.matcher = self._matcher if self.request.n == 1 else self._matcher.copy()
        choice.sampler = Sampler(
            self.request.sampling,
            self._vocabulary,
            choice.sequence.tokens,
            choice=choice.sequence.choice,
            matcher=choice.matcher,
            top_logprobs=self.request.logprobs,
        )
        if self.request.sampling.seed is None:
            # Whether guesses pay is measured, so that no two runs compute alike: what has a seed is to come out the same.
            choice.sequence.drafter = Drafter(
                choice.sequence.prompt_tokens,
                self._foretold,
                None if choice.matcher is None else choice.matcher.forced,
            )
        return choice.sampler
