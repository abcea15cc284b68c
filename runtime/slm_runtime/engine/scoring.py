"""One scoring request in the engine process: what the model thinks of each input's tokens, taken from rows as they come."""

from slm_runtime.engine.messages import Scored, ScoredInput, TokenLogprobs
from slm_runtime.engine.prepare import PreparedScoring
from slm_runtime.engine.protocol import Rows, Vocabulary
from slm_runtime.sampling.logprobs import logprobs
from slm_runtime.scheduler.plan import Sequence, Wanted


class ScoringState:
    """Choice i of it is input i, without its last token: what would follow that isn't asked for."""

    def __init__(self, prepared: PreparedScoring, vocabulary: Vocabulary) -> None:
        self.id = prepared.id
        self.sequences = [
            Sequence(
                request=prepared.id,
                choice=place,
                client=prepared.request.client,
                tokens=tokens[:-1],
                limit=len(tokens) - 1,
                wanted=Wanted.LOGITS,
            )
            for place, tokens in enumerate(prepared.inputs)
            if len(tokens) > 1
        ]
        self._vocabulary = vocabulary
        self._inputs = prepared.inputs
        self._top = prepared.request.top
        self._scored: list[list[TokenLogprobs]] = [[] for _ in prepared.inputs]
        """Of each input: its tokens from the second on."""
        self._open = len(self.sequences)

    @property
    def open(self) -> bool:
        return self._open > 0

    def add(self, sequence: Sequence, position: int, rows: Rows) -> None:
        """Logits of the sequence's tokens from `position` on, each of which says what it thinks of the next token.

        A sequence that gave way to others begins anew, at position 0.
        """
        following = self._inputs[sequence.choice][position + 1 :]
        scored = self._scored[sequence.choice]
        scored[position:] = [
            logprobs(row, token, self._top, self._vocabulary)
            for row, token in zip(rows, following, strict=False)
        ]

    def end(self) -> None:
        """One more input is through."""
        self._open -= 1

    def result(self) -> Scored:
        return Scored(
            self.id,
            [
                ScoredInput(self._vocabulary.piece(tokens[0], special=True), scored)
                for tokens, scored in zip(self._inputs, self._scored, strict=True)
            ],
        )
