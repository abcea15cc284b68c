"""The chain from a row of logits to a token, for one sequence. Neighbours in the batch have no part in it."""

import random
from array import array
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from slm_runtime.engine.messages import Sampling, TokenLogprobs
from slm_runtime.engine.protocol import Tokens, Vocabulary
from slm_runtime.sampling.logprobs import logprobs
from slm_runtime.sampling.penalties import Penalties
from slm_runtime.sampling.truncation import (
    Floats,
    Indices,
    cumulated,
    draw,
    likeliest,
    nucleus,
    softmax,
    typical,
)

_COLDEST: Final = 1e-6
"""Below this temperature the likeliest token is certain, and the reciprocal may be more than 32 bits can hold."""


class Matcher(Protocol):
    """What structured output allows next."""

    def allows(self, token: int) -> bool: ...

    def accept(self, token: int) -> None: ...

    def allowed(self) -> NDArray[np.bool_]:
        """For each token of the vocabulary, whether it may come next; at least one may."""
        ...


class Sampler:
    """Bias and penalties, then top_k, typical_p, top_p, min_p; temperature before these or after them."""

    def __init__(
        self,
        params: Sampling,
        vocabulary: Vocabulary,
        prompt: Tokens,
        *,
        choice: int = 0,
        matcher: Matcher | None = None,
        top_logprobs: int | None = None,
    ) -> None:
        self._params = params
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._top_logprobs = top_logprobs
        # Without the modulus -1 and 1 would draw the same.
        seed = None if params.seed is None else (params.seed + choice) % 2**64
        self._random = random.Random(seed)  # noqa: S311
        self._greedy = params.temperature < _COLDEST
        self._scale = 1.0 if self._greedy else 1 / params.temperature
        self._tail_scale = 1.0 if params.temperature_last else self._scale
        self._bias = None
        if params.logit_bias:
            self._bias = (
                np.fromiter(params.logit_bias.keys(), np.intp),
                np.fromiter(params.logit_bias.values(), np.float32),
            )
        self._penalties = Penalties(params) if Penalties.wanted(params) else None
        if self._penalties is not None:
            prompt = array("i", (token for token in prompt if token >= 0))  # the rest stands for media
            if params.penalize_prompt:
                for token in prompt if params.penalty_window < 0 else prompt[-params.penalty_window :]:
                    self._penalties.add(token)
            if params.repeat_in_prompt:
                self._penalties.add_prompt(prompt)

    def choose(self, row: Floats) -> tuple[int, TokenLogprobs | None]:
        """The next token, and the model's own opinion if it was asked for. May write to the row."""
        changed = self._bias is not None or self._penalties is not None or self._matcher is not None
        own = row.copy() if changed and self._top_logprobs is not None else row
        if self._bias is not None:
            row[self._bias[0]] += self._bias[1]
        if self._penalties is not None:
            self._penalties.apply(row)
        token = self._pick(row)
        if self._matcher is not None:
            # Most tokens that a model proposes are allowed; the mask is made when one is not.
            if not self._matcher.allows(token):
                row[~self._matcher.allowed()] = -np.inf
                token = self._pick(row)
            self._matcher.accept(token)
        if self._penalties is not None:
            self._penalties.add(token)
        if self._top_logprobs is None:
            return token, None
        return token, logprobs(own, token, self._top_logprobs, self._vocabulary)

    def _pick(self, row: Floats) -> int:
        if self._greedy:
            return int(row.argmax())
        params, top_p = self._params, self._params.top_p
        if 0 < params.top_k < row.size:
            candidates, logits = likeliest(row, params.top_k)
        elif params.typical_p < 1:
            candidates, logits = likeliest(row, row.size)
        elif top_p < 1:
            candidates, logits = nucleus(row, self._tail_scale, top_p)
            top_p = 1.0
        elif params.min_p > 0:
            # Never the empty set: the likeliest reaches any share of itself.
            candidates, logits = likeliest(row, int(np.count_nonzero(row >= self._floor(row.max()))))
        else:
            return draw(row, self._scale, self._random.random())
        return self._pick_among(candidates, logits, top_p)

    def _pick_among(self, candidates: Indices, logits: Floats, top_p: float) -> int:
        """Candidates come likeliest first. Called for every token: as few calls of numpy as will do."""
        params = self._params
        if params.typical_p < 1:
            kept = typical(softmax(logits, self._tail_scale), params.typical_p)
            candidates, logits = candidates[kept], logits[kept]
        count = candidates.size
        reached = cumulated(logits, self._tail_scale)
        if top_p < 1:
            count = int(reached.searchsorted(top_p * reached[-1])) + 1
        if params.min_p > 0:
            count = min(count, max(1, int(np.count_nonzero(logits >= self._floor(logits[0])))))
        if self._scale != self._tail_scale:
            reached = cumulated(logits[:count], self._scale)
        place = int(reached[:count].searchsorted(self._random.random() * reached[count - 1], side="right"))
        return int(candidates[min(place, count - 1)])

    def _floor(self, peak: np.float32) -> float:
        """The lowest logit that min_p lets pass."""
        return float(peak) + float(np.log(self._params.min_p)) / self._tail_scale
