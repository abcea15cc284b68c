"""`status` of an SLMDeployment: what was decided and what was observed, never what is hoped for."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from slm_operator.crd.base import ApiModel
from slm_operator.crd.cache import CacheStatus

Text = Annotated[str, Field(max_length=1024)]
LongText = Annotated[str, Field(max_length=4096)]
Bytes = Annotated[int, Field(json_schema_extra={"format": "int64"})]


RevisionState = Literal["Pending", "Serving", "RolledBack", "Superseded"]


class Condition(ApiModel):
    type: Annotated[str, Field(max_length=63)]
    """What this condition is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(min_length=1, max_length=63)]
    """Why, as one word that programs may rely on."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, as a sentence for people."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation of the spec that this is about."""
    last_transition_time: datetime
    """When the status last changed."""


class ModelFileStatus(ApiModel):
    path: Text
    """Its path in the model's folder."""
    size_bytes: Bytes
    """Its size."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """Its checksum, where the source gives it or it has been verified."""


class AdapterStatus(ApiModel):
    name: Annotated[str, Field(max_length=128)]
    """Name that clients ask for."""
    source: Text
    """Where it is from."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """Its checksum, where the source gives it or the spec asks for it."""
    size_bytes: Bytes | None = None
    """Its size."""
    revision: Text | None = None
    """What the source calls the state that is pinned."""
    digest: Annotated[str, Field(max_length=64)] | None = None
    """Names the pinned bytes."""


class ProjectorStatus(ApiModel):
    source: Text
    """Where it is from."""
    resolved: Text | None = None
    """The file that is taken of it."""
    kind: Annotated[str, Field(max_length=64)] | None = None
    """What it is, as llama.cpp names it."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """Its checksum, where the source gives it or the spec asks for it."""
    size_bytes: Bytes | None = None
    """Its size."""
    revision: Text | None = None
    """What the source calls the state that is pinned."""
    digest: Annotated[str, Field(max_length=64)] | None = None
    """Names the pinned bytes."""


Files = Annotated[
    tuple[ModelFileStatus, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
]


class OriginStatus(ApiModel):
    quantization: Annotated[str, Field(max_length=64)]
    """The number format of its weights."""
    size_bytes: Bytes
    """Size of all its files."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """Its checksum, once it has been verified."""


class ModelStatus(ApiModel):
    source: Text | None = None
    """The artifact that is served: that of the selected hardware class."""
    resolved: Text | None = None
    """The file that the source stands for."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """Checksum of the file that is served, once it has been verified."""
    signed_by: Text | None = None
    """Fingerprint of the key or certificate that signed what the source has, once that has been verified."""
    format: Annotated[str, Field(max_length=32)] | None = None
    """Its format: `GGUF` or `ONNX`."""
    engine: Annotated[str, Field(max_length=32)] | None = None
    """Engine that runs it."""
    architecture: Annotated[str, Field(max_length=128)] | None = None
    """The architecture that its header names."""
    quantization: Annotated[str, Field(max_length=64)] | None = None
    """The number format of its weights."""
    quantization_reason: Text | None = None
    """Why this one, where `model.quantization` is `Auto`."""
    context_length: int | None = None
    """Tokens that one request may hold."""
    size_bytes: Bytes | None = None
    """Size of all files."""
    origin: OriginStatus | None = None
    """What the source has, where `model.quantization` had another format derived of it."""
    revision: Text | None = None
    """What the source calls the state that is pinned: a commit, a manifest's digest, an object's version."""
    digest: Annotated[str, Field(max_length=64)] | None = None
    """Names the pinned bytes of all files that the source has."""
    files: Files | None = None
    """The first files of the model, where it has several."""
    adapters: (
        Annotated[
            tuple[AdapterStatus, ...],
            Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """The adapters that are served beside it."""
    projector: ProjectorStatus | None = None
    """What pictures are read with."""
    license: Text | None = None
    """License that the catalog names for it."""
    gated: bool | None = None
    """Whether the catalog says that its source wants a token of somebody who has agreed to the license."""


class DownloadStatus(ApiModel):
    url: Text | None = None
    """Host and path that the file comes from; never what is secret in a URL."""
    state: Annotated[str, Field(max_length=32)]
    """`Waiting`, `Fetching`, `Verifying`, `Quantizing`, `Complete` or `Failed`."""
    percent: int | None = None
    """How much of the file is there, in steps of five; while it is quantized, of the one that is derived."""
    bytes_per_second: Bytes | None = None
    """Speed when the percentage last changed."""
    eta_seconds: int | None = None
    """Seconds left when the percentage last changed."""


class Rejection(ApiModel):
    hardware: Annotated[str, Field(max_length=63)]
    """Class or family that was passed over."""
    reason: Text
    """Why; the scheduler's own words where it was the scheduler."""


class AttemptStatus(ApiModel):
    hardware: Annotated[str, Field(max_length=63)]
    """Class that was tried."""
    artifact: Text | None = None
    """Model file that was to be served there."""
    since: datetime
    """When it was tried."""
    until: datetime | None = None
    """When it was given up; absent while it goes on."""
    cause: Annotated[str, Field(max_length=63)] | None = None
    """Why it was given up, as one word."""
    message: Text | None = None
    """Why, as a sentence."""


class RevisionStatus(ApiModel):
    name: Annotated[str, Field(max_length=253)]
    """The ControllerRevision that keeps it."""
    revision: Annotated[int, Field(json_schema_extra={"format": "int64"})]
    """Its number; a revision that comes back keeps name and number."""
    state: RevisionState
    """`Pending`: being rolled out. `Serving`: the last that became ready. `RolledBack`: never made a token in its time, and
    the one before was put back. `Superseded`: another came in
    its place."""
    hardware: Annotated[str, Field(max_length=63)] | None = None
    """Hardware class that it was placed on."""
    model: Text | None = None
    """Model file that it serves."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """Runtime image that it runs."""
    since: datetime | None = None
    """When it came into its state."""
    reason: Annotated[str, Field(max_length=63)] | None = None
    """Why it is in its state, as one word."""
    message: Text | None = None
    """Why, as a sentence."""


class PlacementStatus(ApiModel):
    selected: Annotated[str, Field(max_length=63)] | None = None
    """The hardware class that the pods are made for."""
    reason: Text | None = None
    """Why this one."""
    rejected: Annotated[tuple[Rejection, ...], Field(max_length=64)] = ()
    """Classes that were preferred and passed over."""


class AccelerationStatus(ApiModel):
    device: Text | None = None
    """The device that the runtime really runs on."""
    provider: Annotated[str, Field(max_length=63)] | None = None
    """The engine's backend for it."""
    layers: int | None = None
    """Layers of the model that are on the accelerator."""
    degraded: bool | None = None
    """True where this is not what the hardware class promises."""


class MemoryStatus(ApiModel):
    weights: Bytes | None = None
    """Bytes of the model's weights."""
    kv_cache: Bytes | None = None
    """Bytes of the KV cache, of all sequences."""
    recurrent_state: Bytes | None = None
    """Bytes of the states that hybrid and recurrent models keep, of all sequences."""
    snapshots: Bytes | None = None
    """Bytes of the copies by which prefixes are shared where sequences can't be cut; none of other models."""
    compute: Bytes | None = None
    """Bytes of the engine's compute buffers."""
    outputs: Bytes | None = None
    """Bytes of the buffer that the engine hands logits out in."""
    projector: Bytes | None = None
    """Bytes of the projector's weights, and of the buffer that the largest picture is encoded in."""
    process: Bytes | None = None
    """Bytes of the runtime's processes and their vocabulary."""
    headroom: Bytes | None = None
    """What the request has on top of these; below zero where `spec.resources` gives less."""
    request: Annotated[str, Field(max_length=32)] | None = None
    """Memory that a replica requests and is limited to."""
    explanation: Text | None = None
    """The sum in words."""


class PerformanceStatus(ApiModel):
    load_seconds: float | None = None
    """Seconds from the start of the container to ready."""
    first_token_ms: int | None = None
    """Milliseconds to the first token of the start-up request."""
    tokens_per_second: float | None = None
    """Speed of one stream at start-up."""
    measured_at: datetime | None = None
    """When this was measured."""


class FailureStatus(ApiModel):
    time: datetime
    """When it was seen."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """The pod, where it was a pod's."""
    reason: Annotated[str, Field(max_length=63)]
    """Why, as one word."""
    message: LongText
    """What went wrong and where."""
    exit_code: int | None = None
    """Exit code of the container, where it ended."""
    remedy: Text
    """What to do about it."""


class DisplayStatus(ApiModel):
    model: Text | None = None
    """Name and quantization, for the MODEL column."""
    ready: Annotated[str, Field(max_length=32)] | None = None
    """Ready and wanted replicas, for the READY column."""


Attempts = Annotated[
    tuple[AttemptStatus, ...], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"})
]
Revisions = Annotated[
    tuple[RevisionStatus, ...],
    Field(
        max_length=5,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    ),
]
NodeNames = Annotated[
    tuple[Annotated[str, Field(max_length=253)], ...],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]


class CanaryAnswer(ApiModel):
    text: Text
    """How the answer began."""
    digest: Annotated[str, Field(max_length=64)]
    """Stands for the whole answer."""
    model: Text
    """What answered: the model's file."""
    hardware: Annotated[str, Field(max_length=63)]
    """On which class."""
    image: Annotated[str, Field(max_length=512)]
    """In which runtime image."""


class CanaryStatus(ApiModel):
    name: Annotated[str, Field(max_length=63)]
    """Name of the canary."""
    key: Annotated[str, Field(max_length=64)]
    """Stands for what is asked."""
    passed: bool
    """Whether the last answers of all pods were as expected."""
    first: CanaryAnswer
    """The first answer that was recorded: what `sameAsFirst` compares with."""
    last: CanaryAnswer | None = None
    """The last answer, where it is another than the first."""


class Status(ApiModel):
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation of the spec that this status is about."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=20,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    """Ready, Reconciling and Stalled as kstatus reads them, and one condition for each step on the way."""
    endpoint: Text | None = None
    """Base URL for OpenAI clients; Ollama clients leave out `/v1`."""
    address: Annotated[str, Field(max_length=253)] | None = None
    """Where it is reached from outside: host or IP of the load balancer, or the port on every node."""
    key_secret: Annotated[str, Field(max_length=253)] | None = None
    """Secret with the API keys."""
    model: ModelStatus | None = None
    """What is served."""
    download: DownloadStatus | None = None
    """Progress of a fetch, while there is one."""
    placement: PlacementStatus | None = None
    """What it runs on, and why."""
    attempts: Attempts | None = None
    """The last classes that were tried for the present spec, oldest first."""
    revisions: Revisions | None = None
    """The last revisions of what the pods are made from, newest first, and what became of each."""
    image_digest: Annotated[str, Field(max_length=512)] | None = None
    """The runtime image that serves, by its digest."""
    nodes: NodeNames | None = None
    """Nodes that the pods run on, at most 16 of them."""
    cache: CacheStatus | None = None
    """The claim that keeps the model, where there is one."""
    acceleration: AccelerationStatus | None = None
    """What the runtime says it really runs on."""
    memory: MemoryStatus | None = None
    """What memory it was given, and why."""
    performance: PerformanceStatus | None = None
    """What the runtime measured when it started."""
    last_failure: FailureStatus | None = None
    """The last failure since it was ready; gone when it is ready again."""
    canaries: (
        Annotated[
            tuple[CanaryStatus, ...],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """What became of the questions in `spec.observability.canary`."""
    replicas: int | None = None
    """Pods that exist; while a change is rolled out, pods that were asked for."""
    ready_replicas: int | None = None
    """Pods that serve."""
    selector: Text | None = None
    """Selector of the pods, for the scale subresource."""
    display: DisplayStatus | None = None
    """Texts for `kubectl get`."""
