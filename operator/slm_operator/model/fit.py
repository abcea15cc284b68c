"""Which context a model is run with: what was asked for, else the largest that the memory there is holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from slm_contract import kv
from slm_contract.config import KVCacheType
from slm_contract.context import default_context
from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import human_bytes
from slm_operator.model.memory import DEFAULT_BATCH, DEFAULT_PARALLEL, Estimate, estimate

LEAST_CONTEXT: Final = 1024
"""An automatic context isn't reduced below this: a shorter one serves nobody."""
SHORTEST_CONTEXT: Final = 256
"""The shortest that is proposed in place of one that was asked for."""


@dataclass(frozen=True)
class Fit:
    """An estimate held against the memory there is."""

    estimate: Estimate
    fits: bool
    explanation: str
    """What adds up to what, and what was reduced for it."""


def fit(
    facts: ModelFacts,
    *,
    context_length: int | None = None,
    parallel: int = DEFAULT_PARALLEL,
    kv_type: KVCacheType = KVCacheType.F16,
    kv_limit: int | None = None,
    batch: int = DEFAULT_BATCH,
    flash_attention: bool = True,
    available: int | None = None,
    projector: ModelFacts | None = None,
) -> Fit:
    """Choose the context and say what it costs.

    Parameters
    ----------
    context_length
        Tokens a request shall hold; None leaves it to us, and only then is it reduced to fit.
    kv_limit
        Bytes that the KV cache may take, in which one request at least has to have room.
    available
        Bytes that a pod may ask for; None where nobody knows.
    projector
        What pictures are read with; None: nothing.
    """

    def at(context: int) -> Estimate:
        return estimate(
            facts,
            context,
            parallel=parallel,
            kv_type=kv_type,
            kv_limit=kv_limit,
            batch=batch,
            flash_attention=flash_attention,
            projector=projector,
        )

    wanted = context_length or default_context(facts)
    held = None if kv_limit is None else kv.held(facts, kv_type, kv_limit, parallel, batch)
    if held is not None and held < wanted:
        if context_length is not None or held < SHORTEST_CONTEXT:
            needed = kv.cache_bytes(facts, kv_type, kv.padded(wanted), parallel, batch)
            return Fit(at(wanted), fits=False, explanation=_too_small(wanted, held, int(needed)))
        wanted = held
    full = at(wanted)
    if available is None or full.request <= available:
        return Fit(full, fits=True, explanation=full.explanation)
    automatic = context_length is None
    reduced = _largest(at, LEAST_CONTEXT if automatic else SHORTEST_CONTEXT, wanted, available)
    if reduced is None:
        least = at(min(LEAST_CONTEXT, wanted)) if automatic else full
        return Fit(
            full,
            fits=False,
            explanation=f"{least.explanation}; the most that a pod can get is {human_bytes(available)}",
        )
    if automatic:
        return Fit(
            reduced,
            fits=True,
            explanation=f"{reduced.explanation}; context reduced from {wanted} tokens, which need "
            f"{human_bytes(full.request)} of {human_bytes(available)}",
        )
    return Fit(
        full,
        fits=False,
        explanation=f"{full.explanation}; the most that a pod can get is {human_bytes(available)}, "
        f"and the longest context that fits it is {reduced.context_length} tokens",
    )


def _largest(at: Callable[[int], Estimate], least: int, wanted: int, available: int) -> Estimate | None:
    """Of the contexts in whole paddings below `wanted`, the longest that fits; None where not even the least does."""
    low, high = -(-least // kv.PADDING), -(-wanted // kv.PADDING)
    if low >= high or at(low * kv.PADDING).request > available:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle * kv.PADDING).request <= available:
            low = middle
        else:
            high = middle
    return at(low * kv.PADDING)


def _too_small(wanted: int, held: int, needed: int) -> str:
    return (
        f"runtime.kvCacheMemory holds {held} tokens, and one request may take {wanted}, "
        f"which need {human_bytes(needed)}"
    )
