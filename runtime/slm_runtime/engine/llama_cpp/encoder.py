"""The Encoder protocol on llama.cpp: BERT and its kin, which see all of a text at once and have no key/value store."""

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as native

from slm_contract import context
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp.batch import Batch
from slm_runtime.engine.llama_cpp.governor import ThreadGovernor
from slm_runtime.engine.llama_cpp.model import LlamaModel
from slm_runtime.engine.llama_cpp.positions import Positions
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.protocol import EncoderCapabilities, EngineFault, Rows, Span, Tokens

INPUTS: Final = 64
"""In one step."""
_FLOAT: Final = 4
_RANK: Final = str(native.LLAMA_POOLING_TYPE_RANK)
_POOLINGS: Final = {
    _RANK: native.LLAMA_POOLING_TYPE_RANK,
    str(native.LLAMA_POOLING_TYPE_CLS): native.LLAMA_POOLING_TYPE_CLS,
    str(native.LLAMA_POOLING_TYPE_LAST): native.LLAMA_POOLING_TYPE_LAST,
}
"""Other files' texts are the mean of their tokens: most models' way, and that of older files, which don't say."""


class LlamaCppEncoder:
    """See Encoder. A model that isn't for it raises LoadError."""

    def __init__(self, model: LlamaModel) -> None:
        config = model.config
        self._model, self.vocabulary = model, model.vocabulary
        ranks = model.pooling == _RANK
        classes = native.llama_model_n_cls_out(model.handle)
        if ranks and classes != 1:
            raise LoadError(
                "UnsupportedArchitecture",
                f"{model.description()} sorts texts into {classes} classes; what is served here scores pairs of texts",
            )
        # Beyond what it was trained for there may be no position to look up.
        context_length = min(config.context_length or context.ENCODER, model.trained_context)
        params = encoder_params(config, context_length)
        params.pooling_type = _POOLINGS.get(model.pooling or "", native.LLAMA_POOLING_TYPE_MEAN)
        self._context = model.make_context(params, f"{params.n_batch} tokens")
        self._width = 1 if ranks else model.embedding_length
        self.capabilities = EncoderCapabilities(
            context_length=context_length, inputs=INPUTS, step_tokens=config.batch_size, ranks=ranks
        )
        self._batch = Batch(params.n_batch)
        self._governor = ThreadGovernor(model.threads, time.monotonic())
        self._computing = model.threads
        outputs = params.n_batch * model.embedding_length * _FLOAT
        self.info = model.describe(self.capabilities, parallel=INPUTS, cells=0, outputs=outputs)

    def encode(self, inputs: Sequence[Tokens]) -> Rows:
        self._batch.fill(
            [Span(place, 0, tokens, len(tokens)) for place, tokens in enumerate(inputs)], Positions()
        )
        began = time.monotonic()
        code = native.llama_encode(self._context, self._batch.native)
        threads = self._governor.stepped(began, time.monotonic())
        if threads != self._computing:
            native.llama_set_n_threads(self._context, threads, threads)
            self._computing = threads
        if code != 0:
            why = " ".join(self._model.log.errors) or "no reason given"
            raise EngineFault(f"llama_encode returned {code}: {why}")
        return np.stack([self._row(place) for place in range(len(inputs))])

    def close(self) -> None:
        native.llama_free(self._context)
        self._model.close()

    def _row(self, place: int) -> Rows:
        first = native.llama_get_embeddings_seq(self._context, place)
        if not first:
            raise EngineFault("llama.cpp has no output for an input that it encoded")
        return np.ctypeslib.as_array(first, (self._width,))


def encoder_params(config: EngineConfig, context_length: int) -> Any:
    """All that decides how much memory a context takes: a step holds the longest input whole."""
    params = native.llama_context_default_params()
    tokens = max(context_length, config.batch_size, INPUTS)
    params.n_ctx = params.n_batch = params.n_ubatch = tokens
    params.n_seq_max = INPUTS
    params.n_outputs_max = tokens
    params.embeddings = True
    params.kv_unified = True
    params.flash_attn_type = -1 if config.flash_attention is None else int(config.flash_attention)
    params.no_perf = True
    return params
