"""The Engine protocol on llama.cpp: one model, one context, one unified key/value store."""

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as native

from slm_contract import context
from slm_runtime.engine.llama_cpp.adapters import Adapters
from slm_runtime.engine.llama_cpp.batch import Batch
from slm_runtime.engine.llama_cpp.governor import ThreadGovernor
from slm_runtime.engine.llama_cpp.model import CELL_PADDING, LlamaModel
from slm_runtime.engine.messages import EngineConfig
from slm_runtime.engine.protocol import Capabilities, EngineFault, NoCells, Output, Pooling, Rows, Span

_MAX_SEQUENCES: Final = 256
"""llama.cpp's own bound on sequence numbers in a unified store."""
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
        self._context = model.make_context(
            context_params(config, context_length),
            f"{config.parallel} x {context_length} tokens ({config.kv_cache_type})",
        )
        self._memory = native.llama_get_memory(self._context)
        if not self._memory:
            raise model.no_generator()
        recurrent = native.llama_model_is_recurrent(model.handle) or native.llama_model_is_hybrid(
            model.handle
        )
        outputs = min(_outputs(config), native.llama_n_batch(self._context))
        pooling = _POOLINGS.get(model.pooling)
        self.capabilities = Capabilities(
            context_length=context_length,
            sequences=config.parallel if recurrent else _MAX_SEQUENCES,
            rows=config.parallel,
            step_tokens=native.llama_n_batch(self._context),
            cells=native.llama_n_ctx(self._context),
            cell_unit=_TILE,
            embedding_tokens=0 if recurrent or pooling is None else outputs,
            pooling=pooling or Pooling.MEAN,
            scored_tokens=outputs,
            draft_rows=outputs if config.speculation and not recurrent else 0,
            # On a CPU, attention works on tiles of prompt tokens. A single token in one of them costs as much as all of
            # it, and less than half a tile is computed token by token.
            mixed=self._log.layers[0] > 0,
            prompt_grain=_TILE,
            partial_removal=not recurrent,
            adapters=len(config.adapters),
        )
        self._governor = ThreadGovernor(model.threads, time.monotonic())
        self._computing = model.threads
        self._batch = Batch(self.capabilities.step_tokens)
        self.info = model.describe(
            self.capabilities, parallel=config.parallel, cells=native.llama_n_ctx(self._context)
        )

    def step(self, spans: Sequence[Span], output: Output = Output.LOGITS) -> Rows:
        rows = self._batch.fill(spans)
        if output is Output.LOGITS:
            self._decode(spans[0].adapter)
            return self._rows(native.llama_get_logits, rows, self.vocabulary.size)
        native.llama_set_embeddings(self._context, True)
        try:
            self._decode(spans[0].adapter)
        finally:
            native.llama_set_embeddings(self._context, False)
        return self._rows(native.llama_get_embeddings, rows, self._embedding_length)

    def copy(self, source: int, target: int, length: int) -> None:
        native.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, sequence: int, length: int) -> None:
        if not native.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise EngineFault(f"llama.cpp can't cut sequence {sequence} at {length}")

    def close(self) -> None:
        native.llama_free(self._context)
        self._model.close()

    def _decode(self, adapter: int) -> None:
        self._adapters.use(self._context, adapter)
        began = time.monotonic()
        code = native.llama_decode(self._context, self._batch.native)
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

    def _rows(self, get: Callable[[Any], Any], rows: int, size: int) -> Rows:
        """A view of the library's own output."""
        if rows == 0:
            return _NO_ROWS
        first = ctypes.cast(get(self._context), ctypes.c_void_p).value
        if first is None:
            raise EngineFault("llama.cpp has no output for a step that asked for some")
        return np.ctypeslib.as_array((ctypes.c_float * (rows * size)).from_address(first)).reshape(rows, size)


def context_params(config: EngineConfig, context_length: int) -> Any:
    """All that decides how much memory a context takes."""
    params = native.llama_context_default_params()
    cells = max(config.kv_cells or context_length * config.parallel, context_length)
    params.n_ctx = -(-cells // CELL_PADDING) * CELL_PADDING
    params.n_batch = max(config.batch_size, config.parallel)
    params.n_ubatch = params.n_batch
    params.n_seq_max = config.parallel
    params.n_outputs_max = _outputs(config)
    params.pooling_type = native.LLAMA_POOLING_TYPE_NONE
    params.kv_unified = True
    params.flash_attn_type = -1 if config.flash_attention is None else int(config.flash_attention)
    params.type_k = params.type_v = _KV_TYPES[config.kv_cache_type]
    params.no_perf = True
    return params


def _outputs(config: EngineConfig) -> int:
    return max(config.parallel, _WHOLE_TOKENS)
