"""The Engine protocol on llama.cpp: one model, one context, one unified key/value store."""

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as native

from slm_runtime.engine.cpus import available_cpus
from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.engine.llama_cpp.batch import Batch
from slm_runtime.engine.llama_cpp.governor import ThreadGovernor
from slm_runtime.engine.llama_cpp.logs import NativeLog
from slm_runtime.engine.llama_cpp.vocabulary import LlamaVocabulary
from slm_runtime.engine.messages import EngineConfig, Loaded, LoadFailed, MemoryBreakdown
from slm_runtime.engine.protocol import Capabilities, EngineFault, NoCells, Pooling, Rows, Span

_DEFAULT_CONTEXT: Final = 8192
_MAX_SEQUENCES: Final = 256
"""llama.cpp's own bound on sequence numbers in a unified store."""
_CELL_PADDING: Final = 256
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


class LoadError(Exception):
    """The model can't be served; `failure` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = LoadFailed(reason=reason, message=message)  # type: ignore[arg-type]


class LlamaCppEngine:
    """See Engine. Loading takes seconds; a wrong file raises LoadError."""

    def __init__(self, config: EngineConfig) -> None:
        started = time.monotonic()
        self._log = NativeLog()
        self._variant = load_backends()
        native.llama_backend_init()
        self._threads = config.threads or available_cpus()
        self._model = self._load_model(config)
        pre = self._metadata("tokenizer.ggml.pre") or self._metadata("tokenizer.ggml.model")
        self.vocabulary = LlamaVocabulary(native.llama_model_get_vocab(self._model), pre)
        trained: int = native.llama_model_n_ctx_train(self._model)
        context_length = config.context_length or min(trained, _DEFAULT_CONTEXT)
        self._embedding_length: int = native.llama_model_n_embd_out(self._model)
        if native.llama_model_has_encoder(self._model):
            raise self._no_generator()
        self._context = self._make_context(config, context_length)
        self._memory = native.llama_get_memory(self._context)
        if not self._memory:
            raise self._no_generator()
        recurrent = native.llama_model_is_recurrent(self._model) or native.llama_model_is_hybrid(self._model)
        outputs = min(_outputs(config), native.llama_n_batch(self._context))
        pooling = _POOLINGS.get(self._metadata(f"{self._metadata('general.architecture')}.pooling_type"))
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
            # On a CPU, attention works on tiles of prompt tokens. A single token in one of them costs as much as all of
            # it, and less than half a tile is computed token by token.
            mixed=self._log.layers[0] > 0,
            prompt_grain=_TILE,
            partial_removal=not recurrent,
        )
        self._governor = ThreadGovernor(self._threads, time.monotonic())
        self._computing = self._threads
        self._batch = Batch(self.capabilities.step_tokens)
        self.info = self._describe(config, trained, time.monotonic() - started)

    def step(self, spans: Sequence[Span]) -> Rows:
        rows = self._batch.fill(spans)
        self._decode()
        return self._rows(native.llama_get_logits, rows, self.vocabulary.size)

    def embed(self, spans: Sequence[Span]) -> Rows:
        rows = self._batch.fill(spans, every=True)
        native.llama_set_embeddings(self._context, True)
        try:
            self._decode()
        finally:
            native.llama_set_embeddings(self._context, False)
        return self._rows(native.llama_get_embeddings, rows, self._embedding_length)

    def score(self, spans: Sequence[Span]) -> Rows:
        rows = self._batch.fill(spans, every=True)
        self._decode()
        return self._rows(native.llama_get_logits, rows, self.vocabulary.size)

    def copy(self, source: int, target: int, length: int) -> None:
        native.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, sequence: int, length: int) -> None:
        if not native.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise EngineFault(f"llama.cpp can't cut sequence {sequence} at {length}")

    def close(self) -> None:
        native.llama_free(self._context)
        native.llama_model_free(self._model)

    def _decode(self) -> None:
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

    def _load_model(self, config: EngineConfig) -> Any:
        if not Path(config.model_path).is_file():
            raise LoadError("InvalidModel", f"there is no model file {config.model_path}")
        params = native.llama_model_default_params()
        params.n_gpu_layers = config.gpu_layers if config.provider != "cpu" else 0
        model = native.llama_model_load_from_file(config.model_path.encode(), params)
        if model:
            return model
        why = " ".join(self._log.errors)
        name = Path(config.model_path).name
        if "unknown model architecture" in why:
            raise LoadError("UnsupportedArchitecture", f"llama.cpp can't run {name}: {why}")
        if "alloc" in why:
            raise LoadError("OutOfMemory", f"{name} doesn't fit into memory: {why}")
        raise LoadError("InvalidModel", f"llama.cpp can't load {name}: {why or 'no reason given'}")

    def _no_generator(self) -> LoadError:
        return LoadError("UnsupportedArchitecture", f"{self._description()} generates no text token by token")

    def _make_context(self, config: EngineConfig, context_length: int) -> Any:
        params = context_params(config, context_length)
        params.n_threads = params.n_threads_batch = self._threads
        context = native.llama_init_from_model(self._model, params)
        if not context:
            why = " ".join(self._log.errors) or "no reason given"
            raise LoadError(
                "OutOfMemory" if "alloc" in why else "EngineFailed",
                f"llama.cpp can't make a context of {config.parallel} x {context_length} tokens "
                f"({config.kv_cache_type}): {why}",
            )
        return context

    def _describe(self, config: EngineConfig, trained: int, seconds: float) -> Loaded:
        vocabulary, sizes = self.vocabulary, self._log.bytes
        offloaded, total = self._log.layers
        provider = config.provider if offloaded else "cpu"
        return Loaded(
            engine="llama.cpp",
            context_length=self.capabilities.context_length,
            trained_context_length=trained,
            parallel=config.parallel,
            kv_cells=native.llama_n_ctx(self._context),
            vocab_size=vocabulary.size,
            embedding_length=self._embedding_length,
            bos=vocabulary.bos,
            eos=vocabulary.eos,
            bos_text=_text(vocabulary, vocabulary.bos),
            eos_text=_text(vocabulary, vocabulary.eos),
            add_bos=vocabulary.add_bos,
            chat_templates=self._chat_templates(),
            description=self._description(),
            device=f"{provider} ({self._variant}, {self._threads} threads)",
            provider=provider,
            variant=self._variant,
            threads=self._threads,
            layers_offloaded=offloaded,
            layers_total=total or native.llama_model_n_layer(self._model) + 1,
            flash_attention=config.flash_attention is not False,
            memory=MemoryBreakdown(
                weights=sizes.get("model", 0),
                kv_cache=sizes.get("KV", 0) + sizes.get("RS", 0),
                compute=sizes.get("compute", 0) + sizes.get("output", 0),
                resident=resident_bytes(),
            ),
            load_seconds=seconds,
        )

    def _chat_templates(self) -> dict[str, str]:
        """The main one is "default"; others go by their key's end, `tokenizer.chat_template.<name>`."""
        found: dict[str, str] = {}
        for name in (None, b"tool_use", b"rag"):
            text = native.llama_model_chat_template(self._model, name)
            if text:
                found[name.decode() if name else "default"] = text.decode(errors="replace")
        return found

    def _metadata(self, key: str) -> str | None:
        """A short value of the file's header, as text."""
        buffer = ctypes.create_string_buffer(64)
        found = native.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer)) >= 0
        return buffer.value.decode(errors="replace") if found else None

    def _description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        native.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")


def context_params(config: EngineConfig, context_length: int) -> Any:
    """All that decides how much memory a context takes."""
    params = native.llama_context_default_params()
    cells = context_length * config.parallel
    params.n_ctx = -(-cells // _CELL_PADDING) * _CELL_PADDING
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


def resident_bytes() -> int:
    """Of this process, as the kernel counts them."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _text(vocabulary: LlamaVocabulary, token: int | None) -> str:
    return "" if token is None else vocabulary.piece(token, special=True).decode(errors="replace")
