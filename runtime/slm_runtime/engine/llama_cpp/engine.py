"""The Engine protocol on llama.cpp: one model, one context, one unified key/value store."""

import ctypes
import logging
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_cpp import llama_cpp as native

from slm_contract import context, kv
from slm_runtime.engine.llama_cpp.adapters import Adapters
from slm_runtime.engine.llama_cpp.batch import Batch, MediaBatch
from slm_runtime.engine.llama_cpp.governor import ThreadGovernor
from slm_runtime.engine.llama_cpp.model import LlamaModel
from slm_runtime.engine.llama_cpp.positions import Positions
from slm_runtime.engine.llama_cpp.snapshots import SequenceStates, sizes_of
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.protocol import (
    Capabilities,
    EngineFault,
    NoCells,
    Output,
    Pooling,
    Rows,
    SnapshotSizes,
    Span,
)

if TYPE_CHECKING:
    from slm_runtime.engine.llama_cpp.projector import Projector

log = logging.getLogger(__name__)

_TILE: Final = 64
_WHOLE_TOKENS: Final = 32
"""Tokens whose hidden states or logits one step can give: each costs a row of logits in the compute buffer."""
_KV_TYPES: Final = {"f16": native.GGML_TYPE_F16, "q8_0": native.GGML_TYPE_Q8_0, "q4_0": native.GGML_TYPE_Q4_0}
_POOLINGS: Final = {
    None: Pooling.MEAN,
    str(native.LLAMA_POOLING_TYPE_NONE): Pooling.MEAN,
    str(native.LLAMA_POOLING_TYPE_MEAN): Pooling.MEAN,
    str(native.LLAMA_POOLING_TYPE_LAST): Pooling.LAST,
}
"""By what the file says; the other ways are those of models that aren't for embeddings of texts, or don't generate."""
_NO_ROWS: Final[Rows] = np.empty((0, 0), np.float32)


class LlamaCppEngine:
    """See Engine. A model that isn't for it raises LoadError."""

    def __init__(self, model: LlamaModel) -> None:
        config = model.config
        self._model, self.vocabulary = model, model.vocabulary
        self._log = model.log
        context_length = config.context_length or min(model.trained_context, context.DEFAULT)
        self._embedding_length = model.embedding_length
        if native.llama_model_has_encoder(model.handle):
            raise model.no_generator()
        # They come before the context: its graphs have room for those that are there.
        self._adapters = Adapters(model.handle, config, model.log)
        recurrent, window = _recurrent(model.handle), window_of(model.handle)
        self._context = model.make_context(
            context_params(config, context_length, window),
            f"{config.parallel} x {context_length} tokens ({config.kv_cache_type})",
        )
        self._memory = native.llama_get_memory(self._context)
        if not self._memory:
            raise model.no_generator()
        step_tokens: int = native.llama_n_batch(self._context)
        # What the library made, not what was asked for: not every model with a window has a cache for it.
        self._window = window if self._log.window_cells < native.llama_n_ctx(self._context) else None
        self._longest = 0
        if self._window is not None:
            self._longest = (self._log.window_cells - step_tokens) // config.parallel
        whole = recurrent or self._window is not None
        self._positions = Positions()
        self._states = SequenceStates(self._context, self._positions)
        outputs = min(_outputs(config), step_tokens)
        self.media = _projector(model, context_length, step_tokens)
        pooling = _POOLINGS.get(model.pooling)
        offloads = self._log.layers[0] > 0
        guesses = offloads if config.speculation is None else config.speculation
        self.capabilities = Capabilities(
            context_length=context_length,
            sequences=config.parallel if whole else kv.MOST_SEQUENCES,
            rows=config.parallel,
            step_tokens=step_tokens,
            cells=native.llama_n_ctx(self._context),
            cell_unit=_TILE,
            embedding_tokens=0 if recurrent or pooling is None else outputs,
            pooling=pooling or Pooling.MEAN,
            scored_tokens=outputs,
            # To a CPU two tokens in a step are nearly twice the work of one, so that guesses have to be nearly certain.
            draft_rows=outputs if guesses and not whole else 0,
            # On a CPU, attention works on tiles of prompt tokens. A single token in one of them costs as much as all of
            # it, and less than half a tile is computed token by token.
            mixed=offloads,
            prompt_grain=_TILE,
            partial_removal=not whole,
            adapters=len(config.adapters),
            media=self.media is not None,
            whole_media=self.media is not None and self.media.whole,
        )
        self._governor = ThreadGovernor(model.threads, time.monotonic())
        self._computing = model.threads
        self._batch = Batch(step_tokens)
        self._media_batch = MediaBatch(step_tokens, self.media.width, self.media.axes) if self.media else None
        if whole and (sizes := self._measured()):
            room = kv.snapshot_room(sizes.of(min(context_length, kv.USUAL_TOKENS)), config.parallel)
            self.capabilities = replace(self.capabilities, snapshots=sizes, snapshot_room=room)
        self.info = model.describe(
            self.capabilities,
            parallel=config.parallel,
            cells=native.llama_n_ctx(self._context),
            buffers=self.media.buffers if self.media else 0,
        )

    def step(self, spans: Sequence[Span], output: Output = Output.LOGITS) -> Rows:
        if spans[0].medium is not None:
            return self._take_in(spans)
        rows = self._batch.fill(spans, self._positions)
        if output is Output.LOGITS:
            self._decode(self._batch, spans)
            return self._rows(native.llama_get_logits, rows, self.vocabulary.size)
        native.llama_set_embeddings(self._context, True)
        try:
            self._decode(self._batch, spans)
        finally:
            native.llama_set_embeddings(self._context, False)
        return self._rows(native.llama_get_embeddings, rows, self._embedding_length)

    def copy(self, source: int, target: int, length: int) -> None:
        end = self._positions.of(source, length)
        native.llama_memory_seq_cp(self._memory, source, target, 0, end)
        self._positions.copied(source, target, length)

    def cut(self, sequence: int, length: int) -> None:
        end = self._positions.of(sequence, length)
        if not native.llama_memory_seq_rm(self._memory, sequence, end, -1):
            raise EngineFault(f"llama.cpp can't cut sequence {sequence} at {length}")
        self._positions.cut(sequence, length)

    def save(self, sequence: int, snapshot: int) -> None:
        self._states.save(sequence, snapshot)

    def restore(self, snapshot: int, sequence: int) -> None:
        self._states.restore(snapshot, sequence)

    def forget(self, snapshot: int) -> None:
        self._states.forget(snapshot)

    def close(self) -> None:
        if self.media is not None:
            self.media.close()
        native.llama_free(self._context)
        self._model.close()

    def _measured(self) -> SnapshotSizes | None:
        """What snapshots take, as the library has it; None: what it restores isn't what it saved."""
        sizes = []
        for position in range(2):
            self.step([Span(0, position, array("i", [0]))])
            sizes.append(self._states.sizes(0))
        found: object
        try:
            self.save(0, 0)
            self.cut(0, 0)
            self.restore(0, 0)
            self.forget(0)
            found = self._states.sizes(0), native.llama_memory_seq_pos_max(self._memory, 0)
        except EngineFault as fault:
            found = fault
        self.cut(0, 0)
        if found == (sizes[1], 1):
            return sizes_of(sizes[0], sizes[1], self._window)
        log.warning(
            "prefixes aren't shared, for llama.cpp restores of this model not what it saved: %s", found
        )
        return None

    def _take_in(self, spans: Sequence[Span]) -> Rows:
        """The spans are parts of media: in the place of tokens, the model gets what these are encoded to."""
        if self.media is None or self._media_batch is None:
            raise TypeError("an engine without a projector takes no media")
        encodings = [self.media.encoding(span) for span in spans]
        encoded = [self.media.rows(encoding) for encoding in encodings]
        grids = [encoding.part.grid for encoding in encodings]
        rows = self._media_batch.fill(spans, grids, encoded, self._positions)
        native.llama_set_causal_attn(self._context, not self.media.whole)
        try:
            self._decode(self._media_batch, spans)
        finally:
            native.llama_set_causal_attn(self._context, True)
        for span, encoding in zip(spans, encodings, strict=True):
            end = span.position + len(span.tokens)
            if span.medium is not None and end == span.medium.end:
                part = encoding.part
                self._positions.took(span.sequence, end, part.tokens - part.positions)
                encoding.rows = None
        return self._rows(native.llama_get_logits, rows, self.vocabulary.size)

    def _decode(self, batch: Batch | MediaBatch, spans: Sequence[Span]) -> None:
        self._adapters.use(self._context, spans[0].adapter)
        began = time.monotonic()
        code = native.llama_decode(self._context, batch.native)
        threads = self._governor.stepped(began, time.monotonic())
        if threads != self._computing:
            native.llama_set_n_threads(self._context, threads, threads)
            self._computing = threads
        if code == 1:
            raise NoCells
        if code != 0:
            raise EngineFault(
                f"llama_decode returned {code}: {' '.join(self._log.errors) or 'no reason given'}"
            )
        if self._window is not None:
            for span in spans:
                self._shorten(span.sequence)

    def _shorten(self, sequence: int) -> None:
        """So that all sequences find cells for their windows, however long each of them is."""
        first = native.llama_memory_seq_pos_min(self._memory, sequence)
        if native.llama_memory_seq_pos_max(self._memory, sequence) - first >= self._longest:
            self._states.shorten(sequence)

    def _rows(self, get: Callable[[Any], Any], rows: int, size: int) -> Rows:
        """A view of the library's own output."""
        if rows == 0:
            return _NO_ROWS
        first = ctypes.cast(get(self._context), ctypes.c_void_p).value
        if first is None:
            raise EngineFault("llama.cpp has no output for a step that asked for some")
        return np.ctypeslib.as_array((ctypes.c_float * (rows * size)).from_address(first)).reshape(rows, size)


def _projector(model: LlamaModel, context_length: int, step_tokens: int) -> "Projector | None":
    path = model.config.projector
    if path is None:
        return None
    # Its library takes a while to load, and most models need none.
    from slm_runtime.engine.llama_cpp.projector import Projector

    return Projector(model, path, context_length, step_tokens)


def window_of(model: Any) -> int:
    """Tokens that a model's windowed blocks see; 0: it has none, or keeps a state beside them."""
    return 0 if _recurrent(model) else int(native.llama_model_n_swa(model))


def _recurrent(model: Any) -> bool:
    return bool(native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model))


def context_params(config: EngineConfig, context_length: int, window: int) -> Any:
    """All that decides how much memory a context takes.

    Parameters
    ----------
    window
        As of `window_of`.
    """
    params = native.llama_context_default_params()
    cells = max(config.kv_cells or context_length * config.parallel, context_length)
    params.n_ctx = kv.padded(cells)
    params.n_batch = max(config.batch_size, config.parallel)
    params.n_ubatch = params.n_batch
    params.n_seq_max = config.parallel
    if kv.window_cells(params.n_ctx, window, config.parallel, config.batch_size) is not None:
        params.swa_full = False
        params.n_seq_max = kv.windows(config.parallel)
    params.n_outputs_max = _outputs(config)
    params.pooling_type = native.LLAMA_POOLING_TYPE_NONE
    params.kv_unified = True
    params.flash_attn_type = -1 if config.flash_attention is None else int(config.flash_attention)
    params.type_k = params.type_v = _KV_TYPES[config.kv_cache_type]
    params.no_perf = True
    return params


def _outputs(config: EngineConfig) -> int:
    return max(config.parallel, _WHOLE_TOKENS)
