"""The likeliest tokens of a row, and cutting a distribution's tail, in a pass or two over the row."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

_BLOCK: Final = 64


def likeliest(row: Floats, k: int) -> Indices:
    """Indices of the `k` largest, the largest first; of equals the lower index.

    The k-th largest maximum of disjoint groups is a lower bound for the k-th largest element, and finding
    it costs one pass of elementwise maxima: much less than partitioning the whole row.
    """
    size = row.size
    if k >= size:
        return np.argsort(-row, kind="stable")
    groups = max(size // _BLOCK, 4 * k)
    height = size // groups
    if height < 2:
        bound = np.partition(row, size - k)[size - k]
    else:
        maxima = row[: groups * height].reshape(height, groups).max(axis=0)
        bound = np.partition(maxima, groups - k)[groups - k]
    candidates = np.flatnonzero(row >= bound)
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]]


def nucleus(row: Floats, scale: float, top_p: float) -> Indices:
    """Indices of the fewest tokens whose probabilities reach `top_p`, the likeliest first."""
    probabilities = np.exp((row - row.max()) * np.float32(scale))
    wanted = top_p * float(probabilities.sum(dtype=np.float64))
    k = _BLOCK
    while True:
        indices = likeliest(row, k)
        reached = np.cumsum(probabilities[indices], dtype=np.float64)
        if reached[-1] >= wanted or indices.size == row.size:
            return indices[: int(np.searchsorted(reached, wanted)) + 1]
        k *= 8


def softmax(logits: Floats, scale: float) -> NDArray[np.float64]:
    """Probabilities of a few candidates; rows that are impossible (-inf) get 0."""
    shifted = (logits - logits.max()).astype(np.float64) * scale
    weights = np.exp(shifted)
    return np.asarray(weights / weights.sum(), np.float64)


def typical(probabilities: NDArray[np.float64], typical_p: float) -> Indices:
    """Places of the tokens whose surprise is nearest to the entropy, up to `typical_p` of the whole."""
    with np.errstate(divide="ignore"):
        surprise = -np.log(probabilities)
    entropy = float((probabilities * np.where(probabilities > 0, surprise, 0)).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    reached = np.cumsum(probabilities[order])
    kept = order[: int(np.searchsorted(reached, typical_p)) + 1]
    return np.sort(kept)


def draw(row: Floats, scale: float, uniform: float) -> int:
    """An index of the whole row, by the scaled softmax's probabilities, picked by a number in [0, 1)."""
    weights = np.exp((row - row.max()) * np.float32(scale))
    blocks = np.add.reduceat(weights, np.arange(0, row.size, _BLOCK)).cumsum(dtype=np.float64)
    target = uniform * blocks[-1]
    block = min(int(np.searchsorted(blocks, target, side="right")), blocks.size - 1)
    before = blocks[block - 1] if block else 0.0
    inside = np.cumsum(weights[block * _BLOCK : (block + 1) * _BLOCK], dtype=np.float64)
    place = min(int(np.searchsorted(inside, target - before, side="right")), inside.size - 1)
    return block * _BLOCK + place
