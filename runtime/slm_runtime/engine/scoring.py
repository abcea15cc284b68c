"""One scoring request in the engine process: what the model thinks of each input's tokens, taken from rows as they come."""

from typing_extensions import override

from slm_runtime.engine.messages import Scored, ScoredInput, TokenLogprobs
from slm_runtime.engine.prepare import PreparedScoring
from slm_runtime.engine.protocol import Rows, Vocabulary
from slm_runtime.engine.reading import Reading
from slm_runtime.sampling.logprobs import logprobs
from slm_runtime.scheduler.plan import Sequence, Wanted


class ScoringState(Reading):
    """Its sequences go without their inputs' last tokens: what would follow these isn't asked for."""

    def __init__(self, prepared: PreparedScoring, vocabulary: Vocabulary) -> None:
        sequences = [
            Sequence(
                request=prepared.id,
                choice=place,
                client=prepared.request.client,
                tokens=tokens[:-1],
                limit=len(tokens) - 1,
                wanted=Wanted.LOGITS,
                adapter=prepared.request.adapter,
            )
            for place, tokens in enumerate(prepared.inputs)
            if len(tokens) > 1
        ]
        super().__init__(prepared.id, sequences)
        self._vocabulary = vocabulary
        self._inputs = prepared.inputs
        self._top = prepared.request.top
        self._scored: list[list[TokenLogprobs]] = [[] for _ in prepared.inputs]
        """Of each input: its tokens from the second on."""

    @override
    def add(self, sequence: Sequence, position: int, rows: Rows) -> None:
        """Logits: each row says what the model thinks of the next token."""
        following = self._inputs[sequence.choice][position + 1 :]
        scored = self._scored[sequence.choice]
        scored[position:] = [
            logprobs(row, token, self._top, self._vocabulary)
            for row, token in zip(rows, following, strict=False)
        ]

    @override
    def result(self) -> Scored:
        return Scored(
            self.id,
            [
                ScoredInput(self._vocabulary.piece(tokens[0], special=True), scored)
                for tokens, scored in zip(self._inputs, self._scored, strict=True)
            ],
        )
