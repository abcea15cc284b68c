"""How much memory a model takes, computed from its header.

The formulas follow llama.cpp at the commit that the runtime carries, set up as the runtime does it: one unified KV cache of
`parallel` sequences, padded to 256 cells, sliding windows only as far as they reach, flash attention, a step's tokens in one
graph. Of ONNX they follow onnxruntime: a row of the KV cache a sequence, and weights as its kernels lay them out. What
depends on the architecture is already counted in the header's facts. Bytes throughout.
"""

from dataclasses import dataclass
from typing import Final

from slm_contract import kv, pictures, steps
from slm_contract.config import KVCacheType
from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import MIB, human_bytes

DEFAULT_PARALLEL: Final = 4
DEFAULT_BATCH: Final = 512
OUTPUT_ROWS: Final = 32
"""Tokens that one step can give logits of, where fewer sequences are decoded together."""
ENCODER_INPUTS: Final = 64
"""Texts that an encoder reads in one step."""
FLOAT: Final = 4
PROCESS_BYTES: Final = 98 * MIB
"""The API, engine and template processes without a model; what they share counts once, and libraries whole."""
VOCABULARY_BYTES: Final = 384
"""What one token of the vocabulary takes in the tokenizer's tables, of llama.cpp and of ours."""
CONSTRAINT_BYTES: Final = 496
"""And in the tables by which answers are constrained."""
SESSION_BYTES: Final = 22 * MIB
"""Of onnxruntime, on top: its library and the graph's objects."""
TOKENIZER_BYTES: Final = 1024
"""Of one token, on top, of a model of ONNX: in the tables of its own tokenizer, which knows each merge."""
MARGIN: Final = 0.10
"""On top of the sum: allocators, threads, requests in flight."""
LEAST_MARGIN: Final = 64 * MIB


@dataclass(frozen=True)
class Estimate:
    """Memory of one replica, in bytes."""

    context_length: int
    parallel: int
    kv_type: str
    """Number format of keys and values."""
    kv_cells: int
    """Tokens that the KV cache holds at once, of all sequences."""
    weights: int
    kv_cache: int
    recurrent_state: int
    compute: int
    outputs: int
    process: int
    snapshots: int = 0
    """Room for copies of what sequences hold, where these can't be cut: prefixes are shared by them."""
    projector_weights: int = 0
    projector_compute: int = 0
    """While the largest picture is decoded and encoded, and what is kept of earlier ones."""
    plain: int = 0
    """An encrypted model's file in plain, which lies in memory beside the weights that are made of it."""

    @property
    def projector(self) -> int | None:
        """Of what pictures are read with; None: nothing is."""
        return self.projector_weights + self.projector_compute or None

    @property
    def total(self) -> int:
        engine = self.weights + self.kv_cache + self.recurrent_state + self.compute + self.outputs
        return engine + self.snapshots + self.process + (self.projector or 0) + self.plain

    @property
    def headroom(self) -> int:
        """What the request has on top of the sum."""
        return self.request - self.total

    @property
    def request(self) -> int:
        """What the pod asks for and is limited to: the sum with its headroom, in whole MiB."""
        return -(-(self.total + max(int(self.total * MARGIN), LEAST_MARGIN)) // MIB) * MIB

    @property
    def explanation(self) -> str:
        tokens = f"{self.parallel} x {self.context_length} tokens"
        if self.kv_cells < self.parallel * self.context_length:
            tokens = f"{self.kv_cells} tokens at once of {tokens}"
        parts = [f"weights {human_bytes(self.weights)}"]
        if self.kv_cache:
            parts.append(f"KV cache {human_bytes(self.kv_cache)} ({tokens}, {self.kv_type})")
        if self.recurrent_state:
            parts.append(f"recurrent state {human_bytes(self.recurrent_state)} ({self.parallel} sequences)")
        if self.snapshots:
            parts.append(f"snapshots {human_bytes(self.snapshots)}")
        parts += [
            f"compute {human_bytes(self.compute)}",
            f"outputs {human_bytes(self.outputs)}",
            f"process {human_bytes(self.process)}",
        ]
        if self.projector is not None:
            parts.append(
                f"projector {human_bytes(self.projector)} (weights {human_bytes(self.projector_weights)}, "
                f"a picture {human_bytes(self.projector_compute)})"
            )
        if self.plain:
            parts.append(f"decrypted file {human_bytes(self.plain)}")
        return (
            f"{' + '.join(parts)} = {human_bytes(self.total)}; requested {human_bytes(self.request)}, "
            f"with {human_bytes(self.headroom)} of headroom"
        )


def recurrent_bytes(facts: ModelFacts, parallel: int) -> int:
    """States of `parallel` sequences: they are of one size, whatever the context."""
    return parallel * facts.recurrent_elements * FLOAT


def _process_bytes(facts: ModelFacts) -> int:
    if facts.format != "ONNX":
        return PROCESS_BYTES
    return PROCESS_BYTES + SESSION_BYTES + facts.vocab_size * TOKENIZER_BYTES


def output_bytes(facts: ModelFacts, sequences: int) -> int:
    """A row of logits a sequence, where the engine hands them out."""
    return sequences * facts.vocab_size * FLOAT


def snapshot_bytes(
    facts: ModelFacts, kv_type: KVCacheType, context_length: int, cells: int, parallel: int, batch: int
) -> int:
    """Room for snapshots; none where sequences can be cut."""
    if not facts.recurrent_elements and kv.windowed(facts, cells, parallel, batch) is None:
        return 0
    usual = min(context_length, kv.USUAL_TOKENS)
    return kv.snapshot_room(kv.state_bytes(facts, kv_type, usual), parallel)


def compute_bytes(
    facts: ModelFacts, cells: int, parallel: int, batch: int, *, flash_attention: bool = True
) -> int:
    """The compute buffers, as llama.cpp reserves them for one step.

    They are what exists at once in a step's widest moment: in a block, with the attention mask over all cells, or where its
    logits are made. Without flash attention the scores of every head over all cells exist, too, and the mask is in floats.
    """
    tokens = max(batch, parallel)
    if facts.format == "ONNX":
        return _graph_bytes(facts, steps.graph_tokens(facts.vocab_size, batch, parallel), facts.vocab_size)
    rows = min(max(parallel, OUTPUT_ROWS), tokens)
    elements = _activations(facts)
    if not flash_attention and kv.kv_elements(facts):
        attention = 5 * max(facts.head_count * facts.key_length, facts.embedding_length)
        elements = max(elements, attention + facts.head_count * cells)
    seen = sum(_reaches(facts, cells, kv.windowed(facts, cells, parallel, batch)))
    mask = tokens * seen * (2 if flash_attention else FLOAT)
    logits = (rows * facts.vocab_size + (rows + tokens) * facts.embedding_length) * FLOAT
    state = recurrent_bytes(facts, parallel) // max(facts.recurrent_blocks, 1)
    return max(elements * tokens * FLOAT + mask, logits) + state


def _graph_bytes(facts: ModelFacts, tokens: int, outputs: int) -> int:
    """What a step of a graph comes to: it makes logits of all its tokens, and keeps a block's results for the next.

    Attention makes no scores of all heads over all that was read: it goes through keys and values block by block.
    """
    return tokens * (outputs + 2 * _activations(facts)) * FLOAT


def _activations(facts: ModelFacts) -> int:
    if facts.activations is not None:
        return facts.activations
    return max(
        3 * facts.feed_forward_length + 4 * facts.embedding_length,
        5 * max(facts.head_count * facts.key_length, facts.embedding_length),
    )


def _reaches(facts: ModelFacts, cells: int, window_cells: int | None) -> list[int]:
    """Cells that attention looks at: of blocks that see everything, and of those that see a window. Each has a mask."""
    whole, window = kv.kv_elements(facts) - facts.window_kv_elements, facts.window_kv_elements
    reaches = [cells] if whole else []
    return [*reaches, window_cells or cells] if window else reaches


def picture_bytes(projector: ModelFacts) -> int:
    """The compute buffer in which the largest picture is encoded."""
    told = projector.projector
    return 0 if told is None else told.compute_elements * FLOAT


def encoder_tokens(context_length: int, batch: int) -> int:
    """Tokens that an encoder's buffers are made for: it reads the longest text in one step."""
    return max(context_length, batch, ENCODER_INPUTS)


def encoder_compute_bytes(facts: ModelFacts, tokens: int, *, flash_attention: bool = True) -> int:
    """The compute buffers of a step in which every token sees every other: the mask is a square, one for each reach."""
    if facts.format == "ONNX":
        return (
            _graph_bytes(facts, tokens, facts.embedding_length) + facts.head_count * tokens * tokens * FLOAT
        )
    masks = (2 if facts.sliding_window else 1) * tokens * tokens * (2 if flash_attention else FLOAT)
    elements = _activations(facts)
    if not flash_attention:
        attention = 5 * max(facts.head_count * facts.key_length, facts.embedding_length)
        elements = max(elements, attention + facts.head_count * tokens)
    return elements * tokens * FLOAT + masks


def encoder_output_bytes(facts: ModelFacts, tokens: int) -> int:
    """Of each token a hidden state."""
    return tokens * facts.embedding_length * FLOAT


def estimate(
    facts: ModelFacts,
    context_length: int,
    *,
    parallel: int = DEFAULT_PARALLEL,
    kv_type: KVCacheType = KVCacheType.F16,
    kv_limit: int | None = None,
    batch: int = DEFAULT_BATCH,
    flash_attention: bool = True,
    projector: ModelFacts | None = None,
) -> Estimate:
    """Memory of one replica that runs with just these numbers.

    Parameters
    ----------
    kv_limit
        Bytes that the KV cache is held to, as far as one request has room; None: no bound.
    projector
        What pictures are read with; None: nothing.
    """
    if facts.encoder:
        return _encoder_estimate(facts, context_length, kv_type, batch, flash_attention=flash_attention)
    cells = kv.cells(facts, kv_type, context_length, parallel, batch, limit=kv_limit)
    windowed = kv.windowed(facts, cells, parallel, batch) is not None
    return Estimate(
        context_length=context_length,
        parallel=parallel,
        kv_type=facts.kv_type or kv_type.value,
        kv_cells=cells,
        weights=facts.weights_bytes if facts.resident_bytes is None else facts.resident_bytes,
        kv_cache=int(kv.cache_bytes(facts, kv_type, cells, parallel, batch)),
        recurrent_state=recurrent_bytes(facts, parallel),
        compute=compute_bytes(facts, cells, parallel, batch, flash_attention=flash_attention),
        outputs=output_bytes(facts, kv.windows(parallel) if windowed else parallel),
        process=_process_bytes(facts) + facts.vocab_size * (VOCABULARY_BYTES + CONSTRAINT_BYTES),
        snapshots=snapshot_bytes(facts, kv_type, context_length, cells, parallel, batch),
        projector_weights=0 if projector is None else projector.weights_bytes,
        projector_compute=0 if projector is None else picture_bytes(projector) + pictures.ROOM,
        plain=facts.size_bytes if facts.encrypted else 0,
    )


def _encoder_estimate(
    facts: ModelFacts, context_length: int, kv_type: KVCacheType, batch: int, *, flash_attention: bool
) -> Estimate:
    tokens = encoder_tokens(context_length, batch)
    return Estimate(
        context_length=context_length,
        parallel=ENCODER_INPUTS,
        kv_type=facts.kv_type or kv_type.value,
        kv_cells=0,
        weights=facts.weights_bytes if facts.resident_bytes is None else facts.resident_bytes,
        kv_cache=0,
        recurrent_state=0,
        compute=encoder_compute_bytes(facts, tokens, flash_attention=flash_attention),
        outputs=encoder_output_bytes(facts, tokens),
        process=_process_bytes(facts) + facts.vocab_size * VOCABULARY_BYTES,
        plain=facts.size_bytes if facts.encrypted else 0,
    )
