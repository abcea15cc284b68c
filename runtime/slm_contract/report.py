"""What a runtime pod tells the operator: by termination message (fetch, inspect) and on `/report`."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, PlainSerializer

from slm_contract.base import ContractModel
from slm_contract.retention import Removed
from slm_contract.runs import from_runs, to_runs
from slm_contract.source import ModelFile, SourcePin


class FailureReason(StrEnum):
    """Typed causes; each becomes the reason of a condition, so they are CamelCase and stable."""

    CONFIG_INVALID = "ConfigInvalid"
    SOURCE_INVALID = "SourceInvalid"
    SOURCE_UNAUTHORIZED = "SourceUnauthorized"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_UNTRUSTED = "SourceUntrusted"
    SOURCE_DRIFTED = "SourceDrifted"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"
    DECRYPTION_FAILED = "DecryptionFailed"
    OUT_OF_SPACE = "OutOfSpace"
    STORAGE_UNUSABLE = "StorageUnusable"
    INVALID_MODEL = "InvalidModel"
    UNSUPPORTED_ARCHITECTURE = "UnsupportedArchitecture"
    UNSUPPORTED_FORMAT = "UnsupportedFormat"
    UNSUPPORTED_QUANTIZATION = "UnsupportedQuantization"
    QUANTIZATION_FAILED = "QuantizationFailed"
    MODEL_MISSING = "ModelMissing"
    OUT_OF_MEMORY = "OutOfMemory"
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    PORT_IN_USE = "PortInUse"
    ENGINE_FAILED = "EngineFailed"
    KEYS_MISSING = "KeysMissing"
    ACCELERATION_DEGRADED = "AccelerationDegraded"


class Failure(ContractModel):
    reason: FailureReason
    message: str
    """What is wrong and where, one sentence for people."""
    remedy: str
    """What to do about it, one sentence."""
    permanent: bool = False
    """True: trying again without a change of spec or source can't help."""


class Origin(ContractModel):
    """What a model was derived from, as its source has it."""

    quantization: str
    size_bytes: int
    """Of all files."""
    sha256: str | None = None
    """Of the file that an engine would have opened; None where only the header was read."""
    files: tuple[ModelFile, ...] = ()
    """In the source's order; as many as a termination message holds."""


Kind = Literal["model", "adapter", "projector"]
WITH_ARTICLE: Final[Mapping[Kind, str]] = {
    "model": "a model",
    "adapter": "an adapter",
    "projector": "a projector",
}
"""For messages."""


class ProjectorFacts(ContractModel):
    """What the header of a projector says: a vision encoder, and what makes its picture a model's input."""

    kind: str
    """As llama.cpp names it."""
    output_length: int | None = None
    """The embedding length of the model that it belongs to; None: the header doesn't tell."""
    image_size: int
    """Pixels of a picture's side, as it is encoded; of the largest, where they differ."""
    patch_size: int
    compute_elements: int
    """Numbers that exist at once while the largest picture is encoded."""


class ModelFacts(ContractModel):
    """What the header of a model says; enough to compute its memory before a pod exists."""

    format: Literal["GGUF", "ONNX"] = "GGUF"
    adapter: bool | None = None
    """True: LoRA weights for a model of the architecture that is named; what isn't theirs is 0."""
    projector: ProjectorFacts | None = None
    """What a projector is told by; what isn't its is 0. None: it is none."""
    own_adapters: tuple[str, ...] | None = None
    """Files of the model that are LoRA adapters and a part of it; their size counts as weights. None: there are none."""
    file_name: str
    """Below the model's folder; of several files the one that an engine opens."""
    size_bytes: int
    """Of all files, in plain."""
    sha256: str | None = None
    """Of the named file; None where only the header was read."""
    architecture: str
    encoder: bool = False
    """It reads texts whole, for their vectors or scores, and generates none: nothing is kept of a request."""
    name: str | None = None
    quantization: str | None = None
    parameter_count: int | None = None
    weights_bytes: int
    """Tensor data, bytes; the file less its header."""
    context_length: int
    """Tokens the model was trained for."""
    scaled_context_length: int | None = None
    """Tokens that the RoPE scaling in its header reaches, where these are more."""
    block_count: int
    embedding_length: int
    feed_forward_length: int = 0
    head_count: int
    kv_heads: Annotated[tuple[int, ...], BeforeValidator(from_runs), PlainSerializer(to_runs)]
    """Key/value heads of each block; 0 where a block keeps no keys and values. A long list is written as its runs."""
    key_length: int
    value_length: int
    vocab_size: int
    sliding_window: int | None = None
    expert_count: int = 0
    expert_used_count: int = 0
    """Of one token."""
    kv_elements: int | None = None
    """Numbers that one token leaves in keys and values, over all blocks; None: an earlier report, see `kv_heads`."""
    window_kv_elements: int = 0
    """Of these, in blocks whose attention sees only the sliding window."""
    recurrent_blocks: int = 0
    """Blocks that keep a state of a sequence, of one size whatever its length."""
    recurrent_elements: int = 0
    """Numbers of that state, of all blocks."""
    kv_type: str | None = None
    """Number format of keys and values, where the graph says it: `f32`, `f16` or `bf16`; None: who serves chooses."""
    resident_bytes: int | None = None
    """What the weights take in memory, where kernels lay them out anew at load; None: as in the file."""
    activations: int | None = None
    """The most numbers that exist for one token of a step at once; None: an earlier report."""
    has_chat_template: bool = False
    pin: SourcePin | None = None
    """None for a local file."""
    encrypted: bool = False
    """The files hold ciphertext; what an engine opens lies in memory."""
    signed_by: str | None = None
    """Fingerprint of the key or certificate whose signature was verified; None: nobody asked, or there was none."""
    files: tuple[ModelFile, ...] = ()
    """All that the model consists of, the first is what an engine opens; as many as a termination message holds."""
    origin: Origin | None = None
    """What it was derived from; None: it is as its source has it."""
    offered: tuple[str, ...] | None = None
    """Number formats that the source has it in, as far as their names say; None where none was asked for."""

    @property
    def kind(self) -> Kind:
        """What its file is."""
        return "adapter" if self.adapter else "projector" if self.projector else "model"

    @property
    def source_bytes(self) -> int:
        """Of all files, as the source has them."""
        return self.size_bytes if self.origin is None else self.origin.size_bytes

    @property
    def source_sha256(self) -> str | None:
        return self.sha256 if self.origin is None else self.origin.sha256

    @property
    def source_files(self) -> tuple[ModelFile, ...]:
        return self.files if self.origin is None else self.origin.files


class Download(ContractModel):
    state: Literal["Waiting", "Fetching", "Verifying", "Quantizing", "Complete", "Failed"]
    bytes_done: int = 0
    """Of what is transferred; while it quantizes, of the file that is made."""
    bytes_total: int | None = None
    bytes_per_second: float | None = None
    eta_seconds: float | None = None


class FetchReport(ContractModel):
    """The termination message of `fetch` and `inspect`, at most 4 KiB of JSON."""

    version: Literal[1] = 1
    command: Literal["fetch", "inspect"]
    model: ModelFacts | None = None
    failure: Failure | None = None
    seconds: float | None = None
    cached: bool = False
    """True where the verified file was already in the volume."""
    latest: SourcePin | None = None
    """What the source stands for now, where a pinned model was fetched; None: it wasn't asked, or didn't answer."""
    moved: dict[str, SourcePin] | None = None
    """What the sources of pinned adapters and projectors stand for now, by their keys, where that is something else; earlier
    versions wrote adapters by their names."""
    removed: Removed | None = None
    """What made room before."""


class Acceleration(ContractModel):
    hardware_class: str
    device: str
    """What people call it: `cpu (zen4, 2 threads)`, `NVIDIA L4`."""
    provider: str
    """What really runs: `cpu`, `cuda`, ..."""
    layers: int = 0
    """Layers on the accelerator."""
    layers_total: int = 0
    memory_free: int | None = None
    """Bytes of the accelerators' memory that nobody has taken; None: there is no accelerator."""
    memory_total: int | None = None
    degraded: bool = False
    """True where the provider asked for isn't what runs."""


class MemoryUse(ContractModel):
    """Bytes, measured by the engine and the kernel."""

    weights: int
    kv_cache: int
    compute: int
    resident: int
    snapshots: int = 0
    """At most, of copies by which prefixes are shared where sequences can't be cut."""


class Performance(ContractModel):
    load_seconds: float
    first_token_ms: float
    tokens_per_second: float
    measured_at: datetime


class CanaryReport(ContractModel):
    """What became of one canary, when it was last asked. No times: equal answers are equal reports."""

    name: str
    key: str
    """As of its configuration."""
    passed: bool
    """Whether it was as expected; of `sameAsFirst`, as the first of this process."""
    answer: str
    """Its first :data:`CANARY_ANSWER` characters."""
    digest: str
    """16 hex digits that stand for the whole answer."""


CANARY_ANSWER: Final = 200
"""Characters of an answer that are told."""


class RuntimeReport(ContractModel):
    """Answered on `/report` by whichever command runs in the pod."""

    version: Literal[1] = 1
    command: Literal["fetch", "serve"]
    phase: Literal["Fetching", "Loading", "Ready", "Draining", "Failed"]
    model: ModelFacts | None = None
    projector: ModelFacts | None = None
    """What pictures are read with."""
    context_length: int | None = None
    """Tokens a request may hold, as the engine really runs."""
    download: Download | None = None
    acceleration: Acceleration | None = None
    memory: MemoryUse | None = None
    """None also while the model is unloaded."""
    performance: Performance | None = None
    failure: Failure | None = None
    engine_restarts: int = 0
    unloaded: bool = False
    """The model has left memory for want of requests (`keepAlive`); the next one loads it again."""
    canaries: tuple[CanaryReport, ...] | None = None
    """Of those that have been asked."""
