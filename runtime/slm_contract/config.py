"""What the operator tells a runtime pod. It travels in one environment variable of the pod template."""

import hashlib
from collections.abc import Collection
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from slm_contract.aliases import Dialect
from slm_contract.base import ContractModel
from slm_contract.source import SourcePin


class ModelFormat(StrEnum):
    AUTO = "Auto"
    GGUF = "GGUF"
    ONNX = "ONNX"
    """A folder: graph, weights beside it, tokenizer and configuration."""


class Quantization(StrEnum):
    """Number formats that a model can be derived in, as whole files are named; none needs an importance matrix."""

    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"
    Q6_K = "Q6_K"
    Q5_K_M = "Q5_K_M"
    Q5_K_S = "Q5_K_S"
    Q5_1 = "Q5_1"
    Q5_0 = "Q5_0"
    Q4_K_M = "Q4_K_M"
    Q4_K_S = "Q4_K_S"
    Q4_1 = "Q4_1"
    Q4_0 = "Q4_0"
    IQ4_NL = "IQ4_NL"
    IQ4_XS = "IQ4_XS"
    Q3_K_L = "Q3_K_L"
    Q3_K_M = "Q3_K_M"


class Part(StrEnum):
    """What of a source is brought, where it isn't the model."""

    PROJECTOR = "Projector"
    """The projector that the source names."""
    OWN_PROJECTOR = "OwnProjector"
    """The projector beside the model that the source names."""


class EngineName(StrEnum):
    LLAMA_CPP = "LlamaCpp"
    ONNX_RUNTIME = "OnnxRuntime"


class KVCacheType(StrEnum):
    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


class AuthMode(StrEnum):
    API_KEY = "APIKey"
    NONE = "None"


class SignaturePolicy(StrEnum):
    REQUIRE = "Require"
    IF_PRESENT = "IfPresent"
    """A model without a signature will do; one with a wrong signature won't."""


class SignerKind(StrEnum):
    PUBLIC_KEY = "PublicKey"
    CERTIFICATE = "Certificate"


class VerificationConfig(ContractModel):
    """What is asked of a model's signature."""

    policy: SignaturePolicy = SignaturePolicy.REQUIRE
    signers: SignerKind
    """What :data:`~slm_contract.places.SIGNERS` holds, of those who are trusted."""


class ModelConfig(ContractModel):
    name: str
    """The name that clients ask for."""
    source: str
    """One URI, as the spec has it."""
    sha256: str | None = None
    """Of the model file at the source, 64 lowercase hex digits; checked before the file gets its name."""
    format: ModelFormat = ModelFormat.AUTO
    quantization: Quantization | None = None
    """What is served: the source's variant of that name, else derived of a larger one. None: what the source has."""
    auto: tuple[Quantization, ...] | None = Field(default=None, max_length=32)
    """Formats to choose from, the best first; what was chosen of them is `quantization`. None: none is to be chosen."""
    pin: SourcePin | None = None
    """The bytes that the source stood for when this was decided; None: its address says it all."""
    verification: VerificationConfig | None = None
    """None: nobody asks for a signature."""
    mounted: Literal[True] | None = None
    """True: what is pinned is an image, and lies in the pod where :data:`~slm_contract.places.SOURCE_DIR` is; None: it is
    fetched, or its scheme says where it lies."""
    part: Part | None = None
    """None: the model itself, or an adapter."""

    @property
    def key(self) -> str:
        """What is asked for: 16 hex digits that name source, checksum and quantization, and what is asked of a signature.

        What is to be chosen from counts, not what was chosen: it stays the same when that is known.
        """
        asked = f"{self.source}\n{self.sha256 or ''}"
        if self.format is ModelFormat.ONNX:
            asked += f"\n{self.format.value}"
        if self.part is not None:
            asked += f"\n{self.part.value}"
        if self.auto is not None:
            asked += f"\nAuto {' '.join(self.auto)}"
        elif self.quantization is not None:
            asked += f"\n{self.quantization.value}"
        if self.verification is not None:
            asked += f"\n{self.verification.to_json()}"
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    @property
    def folder(self) -> str:
        """The model's folder in the model volume: by the source's bytes where they are pinned, else by what is asked for.

        What is derived of the same bytes lies beside them, in a folder of its own.
        """
        if self.pin is None:
            return self.key
        if self.quantization is None:
            return self.pin.digest[:16]
        derived = f"{self.pin.digest}\n{self.quantization.value}"
        return hashlib.sha256(derived.encode()).hexdigest()[:16]


class AdapterConfig(ModelConfig):
    """A LoRA adapter: its file is brought as a model's is, and it is served beside the model, under its own name."""

    scale: float = Field(default=1.0, allow_inf_nan=False)
    """How much of it counts."""


def told_apart(names: Collection[str]) -> bool:
    """Whether clients can tell names of models apart: Ollama's write them in any case, and add `:latest`."""
    return len({name.casefold().removesuffix(":latest") for name in names}) == len(names)


class PromptParameters(ContractModel):
    """What a request that doesn't say gets; None leaves it to the API's own default."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_k: int | None = Field(default=None, ge=0)
    """0: off."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    repeat_penalty: float | None = Field(default=None, gt=0)
    repeat_last_n: int | None = Field(default=None, ge=-1)
    """Tokens that the penalties look back on; -1: all."""
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)


class PromptMessage(ContractModel):
    role: Literal["user", "assistant"]
    content: str


class PromptConfig(ContractModel):
    """What a Modelfile says of a model: a request's own word goes before it, the API's default after it."""

    system: str | None = None
    """Where a request brings no system message."""
    template: str | None = None
    """A Jinja chat template, in place of the model's own."""
    stop: tuple[str, ...] | None = None
    parameters: PromptParameters | None = None
    messages: tuple[PromptMessage, ...] | None = None
    """Turns that stand before each conversation, after its system message."""


class HardwareConfig(ContractModel):
    hardware_class: str = "cpu"
    """The class that placement selected; the report repeats it."""
    provider: str = "cpu"
    """What the engine should run on: `cpu`, `cuda`, `vulkan`, ..."""
    gpu_layers: int = 0
    """Layers to offload; -1 is all."""
    devices: tuple[str, ...] | None = None
    """Accelerators to use, by the engine's names or numbers; None: all that it finds."""
    on_degraded: Literal["Report", "Fail"] = "Report"
    """`Fail` keeps the pod unready when the provider isn't what it really runs on."""


class CanaryConfig(ContractModel):
    """A question whose answer is known; one of the expectations is there."""

    name: str
    prompt: str
    contains: str | None = None
    regex: str | None = None
    """Found anywhere in the answer."""
    json_schema: str | None = None
    """As JSON text."""
    same_as_first: Literal[True] | None = None
    every_seconds: float = Field(default=600, ge=1)
    max_tokens: int = Field(default=64, ge=1)

    @property
    def key(self) -> str:
        """What is asked: 16 hex digits; another prompt, or another length of the answer, is another question."""
        return hashlib.sha256(f"{self.max_tokens}\n{self.prompt}".encode()).hexdigest()[:16]


class RuntimeConfig(ContractModel):
    version: Literal[1] = 1
    model: ModelConfig
    adapters: tuple[AdapterConfig, ...] | None = Field(default=None, max_length=16)
    """By names of their own; None: none."""
    projector: ModelConfig | None = None
    """What pictures are read with; None: the model reads text alone."""
    engine: EngineName = EngineName.LLAMA_CPP
    hardware: HardwareConfig = HardwareConfig()
    context_length: int | None = Field(default=None, ge=128)
    """Tokens a request may hold; None: what the model was trained for, capped at 8192."""
    parallel: int = Field(default=4, ge=1, le=256)
    """Sequences decoded together."""
    kv_cache_type: KVCacheType = KVCacheType.F16
    kv_cache_bytes: int | None = Field(default=None, ge=1)
    """Bound of the KV cache; None: `parallel` requests of the full context have room side by side."""
    batch_size: int = Field(default=512, ge=32)
    """Tokens in one step of the engine."""
    threads: int | None = Field(default=None, ge=1)
    """None: the quota of the cgroup or the cores of one memory node, whichever is smaller."""
    flash_attention: bool | None = None
    """None: where the engine can."""
    speculation: bool | None = None
    """Whether to guess ahead what comes next; None: on accelerators, to which a few tokens more in a step are cheap."""
    prompt: PromptConfig | None = None
    """None: what the model itself brings."""
    keep_alive_seconds: float | None = Field(default=None, ge=1)
    """The engine process ends after so long without work, and comes back with the next request; None: never."""
    allowed_origins: tuple[str, ...] | None = None
    """Origins whose pages may use the API from a browser, or `*`; None: none."""
    idle_seconds: float | None = Field(default=None, ge=1)
    """A connection on which nothing was asked for so long is closed; None: as the runtime has it."""
    unknown_fields: Literal["Refuse"] | None = None
    """What becomes of fields of OpenAI requests that aren't known here; None: they are ignored, and a header says so."""
    stored_responses: int | None = Field(default=None, ge=1)
    """Responses that are kept in memory for clients to go on with; None: none."""
    image_origins: tuple[str, ...] | None = None
    """Origins from which images are fetched that clients name by URLs; None: none is fetched."""
    trusted_proxies: tuple[str, ...] | None = None
    """Ranges of addresses whose word is taken for whom they ask for; None: nobody's."""
    metric_aliases: tuple[Dialect, ...] | None = None
    """Other servers whose names the metrics have beside their own; None: none."""
    trace_endpoint: str | None = None
    """Address of an OTLP collector (HTTP) that is sent a span for each request; None: nobody is."""
    canaries: tuple[CanaryConfig, ...] | None = Field(default=None, max_length=16)
    """What the model is asked now and then; None: nothing."""
    auth: AuthMode = AuthMode.API_KEY
    drain_seconds: float = Field(default=5, ge=0)
    """After SIGTERM: seconds without a new request after which none is accepted any more; half of the grace at most."""
    grace_seconds: float = Field(default=60, ge=0)
    """After SIGTERM: how long running requests may take to finish, drain included."""

    @property
    def companions(self) -> tuple[ModelConfig, ...]:
        """What is brought and kept as the model is, and served with it: the adapters, then the projector."""
        projector = () if self.projector is None else (self.projector,)
        return (*(self.adapters or ()), *projector)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [self.model.name, *(each.name for each in self.adapters or ())]
        if not told_apart(names):
            raise ValueError(f"two of {', '.join(names)} are the same name to clients")
        return self
