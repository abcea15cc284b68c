"""The likeliest tokens of a row, and cutting a distribution's tail, in a pass or two over the row."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

_BLOCK: Final = 64
_FARTHER: Final = 1.2
_NEAREST: Final = 0.1
_FARTHEST: Final = 100.0
"""Of logits below their peak: what is looked at."""
_CROWD: Final = 512
"""So many are cheaper narrowed down than sorted."""
_BINS_A_NAT: Final = 16
_BINS: Final = 1024


def likeliest(row: Floats, k: int) -> Indices:
    """Indices of the `k` largest, the largest first; of equals the lower index.

    The k-th largest maximum of disjoint groups is a lower bound for the k-th largest element. Finding it takes
    one pass of elementwise maxima, and only groups whose maximum reaches it are looked into.
    """
    size = row.size
    if k >= size:
        return np.argsort(-row, kind="stable")
    grid, rest = _grid(row, 4 * k)
    groups = grid.shape[1]
    if grid.shape[0] < 2 or groups < k:
        bound = np.partition(row, size - k)[size - k]
        candidates = np.flatnonzero(row >= bound)
    else:
        maxima = grid.max(axis=0)
        bound = np.partition(maxima, groups - k)[groups - k]
        columns = np.flatnonzero(maxima >= bound)
        heights, places = np.nonzero(grid[:, columns] >= bound)
        last = np.flatnonzero(rest >= bound) + (size - rest.size)
        candidates = np.sort(np.concatenate((heights * groups + columns[places], last)))
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]]


class Likeliest:
    """`likeliest` for one sequence: it looks as far below the peak as the last k reached, and farther if need be."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._reach = 1.0

    def of(self, row: Floats) -> tuple[Indices, Floats]:
        """Indices and their logits."""
        k, peak, reach = self._k, row.max(), self._reach
        near = (row >= peak - np.float32(reach)).nonzero()[0]
        while near.size < k and reach < _FARTHEST:
            reach *= 2
            near = (row >= peak - np.float32(reach)).nonzero()[0]
        if near.size < k:
            found = likeliest(row, k)
            return found, row[found]
        values = row[near]
        order = likeliest(values, k) if near.size > _CROWD else np.argsort(-values, kind="stable")[:k]
        found, values = near[order], values[order]
        self._reach = max(_FARTHER * float(peak - values[-1]), _NEAREST)
        return found, values


def _grid(row: Floats, groups: int) -> tuple[NDArray[np.float32], Floats]:
    """The row as columns that are the groups, at least so many, and what is left over: views, no copies."""
    groups = max(row.size // _BLOCK, groups)
    height = row.size // groups
    return row[: groups * height].reshape(height, groups), row[groups * height :]


def nucleus(row: Floats, scale: float, top_p: float) -> Indices:
    """Indices of the fewest tokens whose probabilities reach `top_p`, the likeliest first.

    A model is mostly sure of itself, and a few tokens do. Where they don't, tokens are counted into bins by their
    distance from the likeliest, so that only those that may belong to it are sorted.
    """
    distance = (row.max() - row) * np.float32(scale)
    weights = np.exp(-distance)
    wanted = top_p * float(weights.sum(dtype=np.float64))
    indices = likeliest(row, _BLOCK)
    reached = np.cumsum(weights[indices], dtype=np.float64)
    if reached[-1] < wanted:
        bins = np.minimum(distance * _BINS_A_NAT, _BINS - 1).astype(np.intp)
        mass = np.cumsum(np.bincount(bins, weights, _BINS))
        indices = np.flatnonzero(bins <= int(np.searchsorted(mass, wanted)))
        indices = indices[np.argsort(-row[indices], kind="stable")]
        reached = np.cumsum(weights[indices], dtype=np.float64)
    return indices[: int(np.searchsorted(reached, wanted)) + 1]


def cumulated(logits: Floats, scale: float) -> NDArray[np.float64]:
    """Sums of the candidates' weights up to each, the likeliest's being 1; they come likeliest first."""
    return np.exp((logits - logits[0]) * np.float32(scale)).cumsum(dtype=np.float64)


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
    weights = np.exp((row - row.max()) * np.float32(scale))
    grid, rest = _grid(weights, 1)
    groups = grid.shape[1]
    sums = np.cumsum(np.append(grid.sum(axis=0), rest.sum()), dtype=np.float64)
    target = uniform * sums[-1]
    group = min(int(np.searchsorted(sums, target, side="right")), groups)
    inside = rest if group == groups else grid[:, group]
    reached = np.cumsum(inside, dtype=np.float64) + (sums[group - 1] if group else 0.0)
    place = min(int(np.searchsorted(reached, target, side="right")), inside.size - 1)
    return row.size - rest.size + place if group == groups else place * groups + group
