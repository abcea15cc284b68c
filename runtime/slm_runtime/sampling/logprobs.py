"""What the model itself thought of the tokens, before anything was biased or cut."""

import numpy as np

from slm_runtime.engine.messages import TokenLogprob, TokenLogprobs
from slm_runtime.engine.protocol import Vocabulary
from slm_runtime.sampling.truncation import Floats, likeliest


def logprobs(row: Floats, token: int, top: int, vocabulary: Vocabulary) -> TokenLogprobs:
    """Natural logarithms of the probabilities of `token` and of the `top` likeliest."""
    peak = row.max()
    normalizer = float(peak) + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))

    def entry(index: int) -> TokenLogprob:
        return TokenLogprob(index, vocabulary.piece(index, special=True), float(row[index]) - normalizer)

    best = likeliest(row, top)[0].tolist() if top else []
    return TokenLogprobs(entry(token), [entry(index) for index in best])
