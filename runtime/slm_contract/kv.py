"""How long a KV cache is, and what is kept beside it: one rule for who computes its memory and who makes it."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # not imported: in the engine's process they would take time and memory
    from slm_contract.config import KVCacheType
    from slm_contract.report import ModelFacts

PADDING: Final = 256
"""Cells that a cache is padded to."""
BYTES_PER_ELEMENT: Final = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""By the names of KVCacheType, and those of graphs. Blocks of 32 numbers with their scale."""
MOST_SEQUENCES: Final = 256
"""That an engine numbers."""
STATE_BYTES: Final = 4
"""Of a number of a recurrent state."""
USUAL_TOKENS: Final = 1024
"""Of what a snapshot holds, where the room for snapshots is decided."""
LEAST_SNAPSHOT_ROOM: Final = 64 << 20


def kv_elements(facts: "ModelFacts") -> int:
    """Of one token, in all blocks; an earlier version's report has only the heads."""
    if facts.kv_elements is not None:
        return facts.kv_elements
    return sum(facts.kv_heads) * (facts.key_length + facts.value_length)


def element_bytes(facts: "ModelFacts", kv_type: "KVCacheType") -> float:
    """Of one number: as the model's own graph has it, where it says so, else as whoever serves chose."""
    return BYTES_PER_ELEMENT[facts.kv_type or kv_type.value]


def windows(parallel: int) -> int:
    """Windows that the cache of windowed blocks has room for: more than sequences, so that not every token shortens one."""
    return parallel + max(1, parallel // 4)


def window_cells(cells: int, window: int, parallel: int, batch: int) -> int | None:
    """Cells of the blocks that see only a window; None: as many as all others have, for fewer would spare too little.

    What is kept at full length can be shared and cut anywhere.
    """
    shorter = padded(window * windows(parallel) + max(batch, parallel))
    return shorter if window and 2 * shorter <= cells and windows(parallel) <= MOST_SEQUENCES else None


def windowed(facts: "ModelFacts", cells: int, parallel: int, batch: int) -> int | None:
    """As of `window_cells`, for a model."""
    if not facts.window_kv_elements or facts.recurrent_elements:
        return None
    return window_cells(cells, facts.sliding_window or 0, parallel, batch)


def cache_bytes(facts: "ModelFacts", kv_type: "KVCacheType", cells: int, parallel: int, batch: int) -> float:
    """Keys and values of so many cells, in every block that has attention; 0 where none has."""
    whole, window = kv_elements(facts), facts.window_kv_elements
    shorter = windowed(facts, cells, parallel, batch)
    elements = cells * whole if shorter is None else cells * (whole - window) + shorter * window
    return elements * element_bytes(facts, kv_type)


def cells(
    facts: "ModelFacts",
    kv_type: "KVCacheType",
    context_length: int,
    parallel: int,
    batch: int,
    *,
    limit: int | None = None,
) -> int:
    """Cells for `parallel` requests of `context_length` tokens, or as many of them as a limit holds, one request's at least.

    Parameters
    ----------
    limit
        Bytes of the whole cache; None: no limit.
    """
    whole = padded(context_length * parallel)
    most = None if limit is None else held(facts, kv_type, limit, parallel, batch)
    if in_rows(facts):
        rows = parallel if most is None else min(parallel, max(most // context_length, 1))
        return context_length * rows
    return whole if most is None else min(whole, max(most, padded(context_length)))


def in_rows(facts: "ModelFacts") -> bool:
    """Whether each request has cells of its own, a row of the context's whole length; else all share what there is."""
    return facts.format == "ONNX"


def held(facts: "ModelFacts", kv_type: "KVCacheType", limit: int, parallel: int, batch: int) -> int | None:
    """Cells that a limit in bytes holds, in whole paddings; None: any number, for no block keeps what it no longer sees."""
    elements = limit / element_bytes(facts, kv_type)
    whole, window = kv_elements(facts), facts.window_kv_elements
    if not whole:
        return None
    shorter = windowed(facts, 1 << 62, parallel, batch)
    if shorter is not None:
        left = elements - shorter * window
        if whole == window:
            return None if left >= 0 else int(elements / whole) // PADDING * PADDING
        many = int(left / (whole - window)) // PADDING * PADDING
        if many >= 2 * shorter:
            return many
    return int(elements / whole) if in_rows(facts) else int(elements / whole) // PADDING * PADDING


def state_bytes(facts: "ModelFacts", kv_type: "KVCacheType", tokens: int) -> int:
    """What a snapshot of so many tokens holds of a model whose sequences can't be cut."""
    window = facts.window_kv_elements
    elements = tokens * (kv_elements(facts) - window) + min(tokens, facts.sliding_window or tokens) * window
    return int(elements * element_bytes(facts, kv_type)) + facts.recurrent_elements * STATE_BYTES


def snapshot_room(state: int, parallel: int) -> int:
    """Bytes for snapshots: of every other sequence one, of the usual length.

    Parameters
    ----------
    state
        Bytes of one.
    """
    return max(-(-parallel // 2) * state, LEAST_SNAPSHOT_ROOM)


def padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING
