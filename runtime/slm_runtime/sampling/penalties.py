"""Penalties for tokens that were there before."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from slm_runtime.engine.messages import Sampling
from slm_runtime.sampling.truncation import Floats


class Penalties:
    """Counts the tokens in the window; a step costs a small vector operation, however long the window is."""

    def __init__(self, params: Sampling) -> None:
        self._repeat = np.float32(params.repeat_penalty)
        self._frequency = np.float32(params.frequency_penalty)
        self._presence = np.float32(params.presence_penalty)
        self._window: deque[int] | None = None
        if params.penalty_window >= 0:
            self._window = deque()
        self._size = params.penalty_window
        self._place: dict[int, int] = {}
        self._tokens = np.empty(64, np.intp)
        self._counts = np.zeros(64, np.float32)
        self._asked = np.zeros(64, np.bool_)
        """Whether the prompt holds it, where that counts as a repetition."""

    @staticmethod
    def wanted(params: Sampling) -> bool:
        neutral = (
            params.repeat_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0
        )
        return not neutral and params.penalty_window != 0

    def add_prompt(self, prompt: Iterable[int]) -> None:
        """What the prompt holds counts as a repetition, and as nothing else."""
        for token in prompt:
            self._asked[self._placed(token)] = True

    def add(self, token: int) -> None:
        self._counts[self._placed(token)] += 1
        if self._window is not None:
            self._window.append(token)
            if len(self._window) > self._size:
                self._counts[self._place[self._window.popleft()]] -= 1

    def _placed(self, token: int) -> int:
        place = self._place.setdefault(token, len(self._place))
        if place == self._tokens.size:
            self._tokens = np.concatenate((self._tokens, np.empty_like(self._tokens)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
            self._asked = np.concatenate((self._asked, np.zeros_like(self._asked)))
        self._tokens[place] = token
        return place

    def apply(self, row: Floats) -> None:
        """Change the row in place."""
        seen = len(self._place)
        counts = self._counts[:seen]
        present = (counts > 0) | self._asked[:seen]
        tokens, counts = self._tokens[:seen][present], counts[present]
        logits = row[tokens]
        if self._repeat != 1:
            logits = np.where(logits > 0, logits / self._repeat, logits * self._repeat)
        row[tokens] = logits - counts * self._frequency - (counts > 0) * self._presence
