"""What an engine process is told to load, and what it says when it has, or can't."""

from typing import Literal

import msgspec

from slm_runtime.engine.structs import Message, Value


class AdapterFile(Value):
    """A LoRA adapter; requests name it by its place in the configuration, counted from 1."""

    path: str
    scale: float = 1.0
    """How much of it counts."""


class Offload(Value):
    """What a model takes of an accelerator's memory, by its header."""

    layers: int
    """With what is before and after the blocks as one."""
    layer_bytes: int
    """Of each, its keys and values included."""
    reserve_bytes: int
    """What a step computes with, however many there are."""


EngineKind = Literal["LlamaCpp", "OnnxRuntime"]


class EngineConfig(Message, kw_only=True):
    """What the engine process is started with; its first frame."""

    engine: EngineKind = "LlamaCpp"
    model_path: str
    own_adapters: list[AdapterFile] = msgspec.field(default_factory=list)
    """A part of the model: all goes through them, whatever else it goes through."""
    projector: str | None = None
    """The file (`mmproj`) with which the model sees images; None: it sees none."""
    adapters: list[AdapterFile] = msgspec.field(default_factory=list)
    context_length: int | None = None
    """Tokens a request may hold, prompt and completion together; None: as trained, capped at 8192."""
    parallel: int = 4
    """Sequences decoded together."""
    kv_cache_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    kv_cells: int | None = None
    """Positions of all sequences together; None: `parallel` times the context. Where each sequence has a row of its own, as
    many run together as have whole ones."""
    flash_attention: bool | None = None
    """None: where the engine can."""
    batch_size: int = 512
    """Tokens in one step of the engine."""
    threads: int | None = None
    """None: the quota of the cgroup or the cores of one memory node, whichever is smaller."""
    provider: str = "cpu"
    gpu_layers: int = 0
    """Layers to offload; -1 is all that fit."""
    offload: Offload | None = None
    """None: nobody knows what fits, so all are tried."""
    devices: list[str] = msgspec.field(default_factory=list)
    """Accelerators to use, by the library's names or numbers; none: all that it finds."""
    speculation: bool | None = None
    """Guess what sequences go on with, where the engine can take it back and while it pays; None: on accelerators."""
    queue_limit: int = 128
    """Requests that may wait; more are refused with a time to come back."""


class MemoryBreakdown(Value):
    """Bytes, as the engine allocated them and the kernel counts them."""

    weights: int
    kv_cache: int
    compute: int
    resident: int
    snapshots: int = 0
    """At most, of copies by which prefixes are shared."""


class InfillTokens(Value):
    """What a model was trained to have around a gap."""

    prefix: int
    suffix: int
    middle: int
    repository: int | None = None
    file: int | None = None
    """Before other files; None: it knows no such token."""


class Loaded(Message, kw_only=True):
    """The engine is ready for requests; what it really runs, and on what."""

    engine: str
    """`llama.cpp`, `onnxruntime`"""
    context_length: int
    """Tokens a request may hold."""
    trained_context_length: int
    parallel: int
    kv_cells: int
    vocab_size: int
    embedding_length: int
    bos: int | None
    eos: int | None
    bos_text: str
    eos_text: str
    """For chat templates that write them out."""
    add_bos: bool
    chat_templates: dict[str, str]
    """By name; the model's main one is "default". Empty where the model has none."""
    description: str
    """What people call the model: `llama 135M Q4_1`."""
    device: str
    """What people call the device: `cpu (zen4, 2 threads)`."""
    provider: str
    """What it really runs on, as the library calls it."""
    device_free: int = 0
    """Bytes of the accelerators' memory that nobody has taken; likewise of all."""
    device_total: int = 0
    variant: str
    """Instruction set of the CPU backend, or the accelerator's backend."""
    threads: int
    layers_offloaded: int
    layers_total: int
    flash_attention: bool
    memory: MemoryBreakdown
    load_seconds: float
    generates: bool = True
    """What it can be asked for; likewise what follows."""
    embeds: bool = True
    ranks: bool = False
    sees: bool = False
    """Images in prompts."""
    infill: InfillTokens | None = None
    """None: it fills no gaps."""


LoadFailureReason = Literal[
    "InvalidModel", "UnsupportedArchitecture", "OutOfMemory", "DeviceUnavailable", "EngineFailed"
]


class LoadFailed(Message):
    """The last frame of an engine process that can't serve this model."""

    reason: LoadFailureReason
    message: str
