"""How much memory a model needs, computed from its header before a pod exists.

The formulas follow llama.cpp at the commit that the runtime carries, set up as the runtime does it: one unified KV cache of
`parallel` sequences, padded to 256 cells, flash attention, a step's tokens in one graph. Bytes throughout.
"""

from dataclasses import dataclass
from typing import Final

from slm_contract.config import KVCacheType
from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import MIB, human_bytes

DEFAULT_CONTEXT: Final = 8192
"""Tokens a request may hold where neither the spec nor the model asks for less."""
LEAST_CONTEXT: Final = 1024
"""An automatic context isn't reduced below this: a shorter one serves nobody."""
DEFAULT_PARALLEL: Final = 4
DEFAULT_BATCH: Final = 512
KV_PADDING: Final = 256
"""Cells that the KV cache is padded to."""
PROCESS_BYTES: Final = 88 * MIB
"""The API, engine and template processes without a model, measured as proportional set size."""
VOCABULARY_BYTES: Final = 384
"""What one token of the vocabulary takes in the tokenizer's tables, of llama.cpp and of ours."""
MARGIN: Final = 0.10
"""On top of the sum: allocators, threads, requests in flight."""
LEAST_MARGIN: Final = 64 * MIB

BYTES_PER_ELEMENT: Final = {KVCacheType.F16: 2.0, KVCacheType.Q8_0: 34 / 32, KVCacheType.Q4_0: 18 / 32}
"""Blocks of 32 numbers with their scale."""


@dataclass(frozen=True)
class Estimate:
    """Memory of one replica, in bytes."""

    context_length: int
    parallel: int
    kv_type: KVCacheType
    weights: int
    kv_cache: int
    compute: int
    process: int
    plain: int = 0
    """An encrypted model's file in plain, which lies in memory beside the weights that are made of it."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute + self.process + self.plain

    @property
    def request(self) -> int:
        """What the pod asks for and is limited to: the sum with its margin, in whole MiB."""
        return -(-(self.total + max(int(self.total * MARGIN), LEAST_MARGIN)) // MIB) * MIB

    @property
    def explanation(self) -> str:
        plain = f" + decrypted file {human_bytes(self.plain)}" if self.plain else ""
        return (
            f"weights {human_bytes(self.weights)} + KV cache {human_bytes(self.kv_cache)} ({self.parallel} x "
            f"{self.context_length} tokens, {self.kv_type.value}) + compute {human_bytes(self.compute)} + process "
            f"{human_bytes(self.process)}{plain} = {human_bytes(self.total)}; requested {human_bytes(self.request)}"
        )


def kv_cache_bytes(facts: ModelFacts, context_length: int, parallel: int, kv_type: KVCacheType) -> int:
    """Keys and values of every layer that has attention, for `parallel` sequences of `context_length` tokens."""
    cells = _cells(context_length, parallel)
    row = (facts.key_length + facts.value_length) * BYTES_PER_ELEMENT[kv_type]
    return int(cells * sum(facts.kv_heads) * row)


def compute_bytes(
    facts: ModelFacts, context_length: int, parallel: int, batch: int, *, flash_attention: bool = True
) -> int:
    """The compute buffers, as llama.cpp reserves them for one step.

    Measured over models of many shapes, it is the feed-forward part of one block (its two inputs and their product, and the
    four embeddings around them), the attention mask in half floats over all cells, and one row of logits a sequence.
    Without flash attention the mask is in floats, and the scores of every head over all cells exist at once.
    """
    tokens = max(batch, parallel)
    activations = tokens * (3 * facts.feed_forward_length + 4 * facts.embedding_length) * 4
    attention = tokens * 6 * facts.embedding_length * 4
    logits = parallel * facts.vocab_size * 4
    mask = tokens * _cells(context_length, parallel) * 2
    if not flash_attention:
        attention += tokens * _cells(context_length, parallel) * facts.head_count * 4
        mask *= 2
    return max(activations, attention, logits) + mask + logits


def _cells(context_length: int, parallel: int) -> int:
    return -(-context_length * parallel // KV_PADDING) * KV_PADDING


def estimate(
    facts: ModelFacts,
    context_length: int,
    *,
    parallel: int = DEFAULT_PARALLEL,
    kv_type: KVCacheType = KVCacheType.F16,
    batch: int = DEFAULT_BATCH,
    flash_attention: bool = True,
) -> Estimate:
    """Memory of one replica that runs with just these numbers."""
    return Estimate(
        context_length=context_length,
        parallel=parallel,
        kv_type=kv_type,
        weights=facts.weights_bytes,
        kv_cache=kv_cache_bytes(facts, context_length, parallel, kv_type),
        compute=compute_bytes(facts, context_length, parallel, batch, flash_attention=flash_attention),
        process=PROCESS_BYTES + facts.vocab_size * VOCABULARY_BYTES,
        plain=facts.size_bytes if facts.encrypted else 0,
    )


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
    batch: int = DEFAULT_BATCH,
    flash_attention: bool = True,
    available: int | None = None,
) -> Fit:
    """Choose the context and say what it costs.

    Parameters
    ----------
    context_length
        Tokens a request shall hold; None leaves it to us, and only then is it reduced to fit, by halves.
    available
        Bytes that a pod may ask for; None where nobody knows.
    """

    def at(context: int) -> Estimate:
        return estimate(
            facts, context, parallel=parallel, kv_type=kv_type, batch=batch, flash_attention=flash_attention
        )

    wanted = context_length or min(facts.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    full = at(wanted)
    if available is None or full.request <= available:
        return Fit(full, fits=True, explanation=full.explanation)
    reduced = full
    while (
        context_length is None
        and reduced.context_length // 2 >= LEAST_CONTEXT
        and reduced.request > available
    ):
        reduced = at(reduced.context_length // 2)
    if reduced.request <= available:
        return Fit(
            reduced,
            fits=True,
            explanation=f"{reduced.explanation}; context reduced from {wanted} tokens, which need "
            f"{human_bytes(full.request)} of {human_bytes(available)}",
        )
    return Fit(
        full,
        fits=False,
        explanation=f"{reduced.explanation}; the most that a pod can get is {human_bytes(available)}",
    )
