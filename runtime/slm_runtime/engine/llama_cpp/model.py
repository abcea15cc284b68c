"""A model file that llama.cpp has loaded, and what it says of itself: what every way to run it begins with."""

import ctypes
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as native

from slm_runtime.engine.cpus import available_cpus
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.engine.llama_cpp.devices import Device, accelerators, as_native, chosen, layers_that_fit
from slm_runtime.engine.llama_cpp.logs import NativeLog
from slm_runtime.engine.llama_cpp.vocabulary import LlamaVocabulary
from slm_runtime.engine.loading import EngineConfig, Loaded, MemoryBreakdown
from slm_runtime.engine.protocol import Capabilities, EncoderCapabilities
from slm_runtime.engine.resident import resident_bytes
from slm_runtime.models.encoders import ENCODERS


class LlamaModel:
    """Loading takes seconds; a wrong file raises LoadError."""

    def __init__(self, config: EngineConfig) -> None:
        self._started = time.monotonic()
        self.config = config
        self.log = NativeLog()
        self._variant = load_backends()
        native.llama_backend_init()
        self.threads = config.threads or available_cpus()
        self._devices = (
            [] if config.provider == "cpu" else chosen(accelerators(config.provider), config.devices)
        )
        self._native_devices = as_native(self._devices)
        self.handle = self._load()
        self.architecture = self.metadata("general.architecture") or ""
        pre = self.metadata("tokenizer.ggml.pre") or self.metadata("tokenizer.ggml.model")
        self.vocabulary = LlamaVocabulary(native.llama_model_get_vocab(self.handle), pre)
        self.trained_context: int = native.llama_model_n_ctx_train(self.handle)
        self.embedding_length: int = native.llama_model_n_embd_out(self.handle)

    @property
    def encodes(self) -> bool:
        return self.architecture in ENCODERS

    @property
    def pooling(self) -> str | None:
        """How the file says that a text's vector is made, by llama.cpp's number."""
        return self.metadata(f"{self.architecture}.pooling_type")

    def metadata(self, key: str) -> str | None:
        """A short value of the file's header, as text."""
        buffer = ctypes.create_string_buffer(64)
        found = native.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer)) >= 0
        return buffer.value.decode(errors="replace") if found else None

    def make_context(self, params: Any, what: str) -> Any:
        """Make a context, or raise LoadError that says `what` it would have been."""
        params.n_threads = params.n_threads_batch = self.threads
        context = native.llama_init_from_model(self.handle, params)
        if not context:
            why = " ".join(self.log.errors) or "no reason given"
            raise LoadError(
                "OutOfMemory" if "alloc" in why else "EngineFailed",
                f"llama.cpp can't make a context of {what}: {why}",
            )
        return context

    def no_generator(self) -> LoadError:
        return LoadError("UnsupportedArchitecture", f"{self.description()} generates no text token by token")

    def describe(
        self,
        can: Capabilities | EncoderCapabilities,
        *,
        parallel: int,
        cells: int,
        outputs: int = 0,
        buffers: int = 0,
    ) -> Loaded:
        """Describe what was loaded.

        Parameters
        ----------
        outputs
            Bytes that the output buffer is yet to grow to.
        buffers
            Bytes beside the library's own, at their most.
        """
        vocabulary, sizes = self.vocabulary, self.log.bytes
        offloaded, total = self.log.layers
        used = self._devices if offloaded else []
        provider = used[0].provider if used else "cpu"
        sizes_of_devices = [each.memory() for each in used]
        return Loaded(
            engine="llama.cpp",
            context_length=can.context_length,
            trained_context_length=self.trained_context,
            parallel=parallel,
            kv_cells=cells,
            vocab_size=vocabulary.size,
            embedding_length=self.embedding_length,
            bos=vocabulary.bos,
            eos=vocabulary.eos,
            bos_text=_text(vocabulary, vocabulary.bos),
            eos_text=_text(vocabulary, vocabulary.eos),
            add_bos=vocabulary.add_bos,
            chat_templates=self._chat_templates(),
            description=self.description(),
            device=_names(used) or f"cpu ({self._variant}, {self.threads} threads)",
            device_free=sum(free for free, _ in sizes_of_devices),
            device_total=sum(total for _, total in sizes_of_devices),
            provider=provider,
            variant=self._variant,
            threads=self.threads,
            layers_offloaded=offloaded,
            layers_total=total or native.llama_model_n_layer(self.handle) + 1,
            flash_attention=self.log.flash_attention,
            memory=MemoryBreakdown(
                weights=sum(sizes.get(kind, 0) for kind in ("model", "projector", "LoRA")),
                kv_cache=sizes.get("KV", 0) + sizes.get("RS", 0),
                compute=sizes.get("compute", 0) + max(sizes.get("output", 0), outputs) + buffers,
                resident=resident_bytes(),
                snapshots=can.snapshot_room,
            ),
            load_seconds=time.monotonic() - self._started,
            generates=can.generates,
            embeds=can.embeds,
            ranks=can.ranks,
            sees=can.media,
            infill=vocabulary.infill if can.generates else None,
        )

    def close(self) -> None:
        native.llama_model_free(self.handle)

    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        native.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def _load(self) -> Any:
        path = self.config.model_path
        if not Path(path).is_file():
            raise LoadError("InvalidModel", f"there is no model file {path}")
        params = native.llama_model_default_params()
        # An empty list too: without one, the library computes long prompts on what it finds, whatever the layers.
        params.devices = ctypes.cast(self._native_devices, ctypes.c_void_p)
        if self._devices:
            free = sum(each.memory()[0] for each in self._devices)
            params.n_gpu_layers = layers_that_fit(free, self.config.gpu_layers, self.config.offload)
        else:
            params.n_gpu_layers = 0
        model = native.llama_model_load_from_file(path.encode(), params)
        if model:
            return model
        why = " ".join(self.log.errors)
        name = Path(path).name
        if "unknown model architecture" in why:
            raise LoadError("UnsupportedArchitecture", f"llama.cpp can't run {name}: {why}")
        if "alloc" in why:
            raise LoadError("OutOfMemory", f"{name} doesn't fit into memory: {why}")
        raise LoadError("InvalidModel", f"llama.cpp can't load {name}: {why or 'no reason given'}")

    def _chat_templates(self) -> dict[str, str]:
        """The main one is "default"; others go by their key's end, `tokenizer.chat_template.<name>`."""
        found: dict[str, str] = {}
        for name in (None, b"tool_use", b"rag"):
            text = native.llama_model_chat_template(self.handle, name)
            if text:
                found[name.decode() if name else "default"] = text.decode(errors="replace")
        return found


def _names(devices: Sequence[Device]) -> str:
    """`2 x NVIDIA L4`; nothing, where there is none."""
    counted = Counter(each.description for each in devices)
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())


def _text(vocabulary: LlamaVocabulary, token: int | None) -> str:
    return "" if token is None else vocabulary.piece(token, special=True).decode(errors="replace")
