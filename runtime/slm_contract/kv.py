"""How many positions a KV cache has: one rule for the side that computes its memory and the side that makes it."""

from typing import Final

from slm_contract.config import KVCacheType
from slm_contract.report import ModelFacts

PADDING: Final = 256
"""Cells that a cache is padded to."""
BYTES_PER_ELEMENT: Final = {KVCacheType.F16: 2.0, KVCacheType.Q8_0: 34 / 32, KVCacheType.Q4_0: 18 / 32}
"""Blocks of 32 numbers with their scale."""


def cell_bytes(facts: ModelFacts, kv_type: KVCacheType) -> float:
    """Keys and values of one token, in every block that has attention; 0 where none has."""
    return kv_elements(facts) * BYTES_PER_ELEMENT[kv_type]


def kv_elements(facts: ModelFacts) -> int:
    """Of one token, in all blocks; an earlier version's report has only the heads."""
    if facts.kv_elements is not None:
        return facts.kv_elements
    return sum(facts.kv_heads) * (facts.key_length + facts.value_length)


def cells(context_length: int, parallel: int, *, of_a_cell: float = 0.0, limit: int | None = None) -> int:
    """Cells for `parallel` requests of `context_length` tokens, or as many of them as a limit holds, one request's at least.

    Parameters
    ----------
    of_a_cell
        Bytes.
    limit
        Bytes of the whole cache; None: no limit.
    """
    whole = padded(context_length * parallel)
    if limit is None or not of_a_cell:
        return whole
    return min(whole, max(held(limit, of_a_cell), padded(context_length)))


def held(limit: int, of_a_cell: float) -> int:
    """Cells that a limit in bytes holds, in whole paddings."""
    return int(limit / of_a_cell) // PADDING * PADDING


def padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING
