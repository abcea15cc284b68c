"""The likeliest tokens of a row, and cutting a distribution's tail, in a pass or two over the row."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

_BLOCK: Final = 32
"""Tokens in a group, of which only the largest counts at first."""
_FIRST_LOOK: Final = 64
"""So many tokens are a nucleus, mostly."""
_COLUMN: Final = 64
_BINS_A_NAT: Final = 16
_BINS: Final = 1024


def likeliest(row: Floats, k: int) -> tuple[Indices, Floats]:
    """Indices of the `k` largest, the largest first, of equals the lower index; and their logits.

    The k-th largest maximum of disjoint groups is a lower bound for the k-th largest element, and little else
    reaches it. Two passes over the row, whatever its distribution.
    """
    k = min(k, row.size)
    groups = max(row.size // _BLOCK, 4 * k)
    height = row.size // groups
    peaks = row[: groups * height].reshape(height, groups).max(axis=0) if height > 1 else row.copy()
    peaks.partition(peaks.size - k)
    near = (row >= peaks[peaks.size - k]).nonzero()[0]
    logits = row[near]
    order = (-logits).argsort(kind="stable")[:k]
    return near[order], logits[order]


def nucleus(row: Floats, scale: float, top_p: float) -> tuple[Indices, Floats]:
    """Indices of the fewest tokens whose probabilities reach `top_p`, the likeliest first; and their logits.

    A model is mostly sure of itself, and a few tokens do. Where they don't, tokens are counted into bins by their
    distance from the likeliest, so that only those that may belong to it are sorted.
    """
    peak = row.max()
    weights = _weights(row, peak, scale)
    wanted = top_p * float(weights.sum())
    indices, _ = likeliest(row, _FIRST_LOOK)
    reached = weights[indices].cumsum(dtype=np.float64)
    if reached[-1] < wanted:
        distance = (peak - row) * np.float32(scale * _BINS_A_NAT)
        bins = np.minimum(distance, _BINS - 1).astype(np.intp)
        mass = np.bincount(bins, weights, _BINS).cumsum()
        indices = np.flatnonzero(bins <= int(mass.searchsorted(wanted)))
        indices = indices[np.argsort(-row[indices], kind="stable")]
        reached = weights[indices].cumsum(dtype=np.float64)
    indices = indices[: int(reached.searchsorted(wanted)) + 1]
    return indices, row[indices]


def _weights(row: Floats, peak: np.float32, scale: float) -> Floats:
    """Of each token; 1 where a logit is the peak."""
    weights: Floats = row - peak
    weights *= np.float32(scale)
    np.exp(weights, out=weights)
    return weights


def cumulated(logits: Floats, scale: float) -> NDArray[np.float64]:
    """Sums of the candidates' weights up to each, the likeliest's being 1; they come likeliest first."""
    return np.cumsum(_weights(logits, logits[0], scale), dtype=np.float64)


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
    """An index of the whole row, by the scaled softmax's probabilities, picked by a number in [0, 1).

    Column sums first, then the one column: a cumulative sum over the whole row would cost more than the rest.
    """
    weights = _weights(row, row.max(), scale)
    groups = max(row.size // _COLUMN, 1)
    split = row.size // groups * groups
    grid, rest = weights[:split].reshape(-1, groups), weights[split:]
    sums = np.cumsum(np.append(grid.sum(axis=0), rest.sum()), dtype=np.float64)
    target = uniform * sums[-1]
    group = min(int(np.searchsorted(sums, target, side="right")), groups)
    inside = rest if group == groups else grid[:, group]
    reached = np.cumsum(inside, dtype=np.float64) + (sums[group - 1] if group else 0.0)
    place = min(int(np.searchsorted(reached, target, side="right")), inside.size - 1)
    return split + place if group == groups else place * groups + group
