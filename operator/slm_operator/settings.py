"""The operator's own configuration: frozen data, read once from the chart's ConfigMap by `config`."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from slm_contract.config import EngineName, ModelFormat, Quantization

DEFAULT_USER: Final = 65532
FAST_ON_CPUS: Final = (
    Quantization.Q4_K_M,
    Quantization.Q4_K_S,
    Quantization.Q4_0,
    Quantization.IQ4_NL,
    Quantization.Q5_K_M,
    Quantization.Q5_K_S,
    Quantization.Q6_K,
    Quantization.IQ4_XS,
    Quantization.Q4_1,
    Quantization.Q5_1,
    Quantization.Q5_0,
    Quantization.Q8_0,
)
"""The first four are those for which llama.cpp has kernels of their own on every CPU, by how little they lose; the others by
how much they lose for their size. Below four bits a small model loses too much to do that unasked."""


class SettingsModel(BaseModel):
    """A typing error in the chart's values is an error at start, not a silent default."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class ResourceRequest(SettingsModel):
    """An extended resource that a pod of the class asks for."""

    name: str
    count: int = Field(default=1, ge=1)


class Toleration(SettingsModel):
    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class HardwareClass(SettingsModel):
    """A bundle: which nodes, resource, image, engine and provider. Data, never names in code."""

    name: str
    family: str
    """`npu`, `gpu`, `cpu`, or a site's own; `spec.hardware.preference` names classes or families."""
    node_selector: dict[str, str] = {}
    resource: ResourceRequest | None = None
    tolerations: tuple[Toleration, ...] = ()
    image: str | None = None
    """None: the operator's default runtime image."""
    image_required: bool = False
    """True where the default image lacks this hardware's libraries: without an image of its own the class is passed
    over, rather than have a pod hold an accelerator and compute on the CPU."""
    engines: tuple[EngineName, ...] = ()
    """Engines that its image has; empty: LlamaCpp, and on CPUs OnnxRuntime too, as the default image has them."""
    provider: str = "cpu"
    gpu_layers: int = 0
    quantizations: tuple[Quantization, ...] = Field(default=FAST_ON_CPUS, min_length=1, max_length=16)
    """What `quantization: Auto` chooses from, the best first: the first that the source has, or that can be derived of it,
    and that fits. A change of it moves no model that was decided."""
    reserved_memory: Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$")] | None = None
    """Of each node, what isn't for models: what DaemonSets and others hold there."""
    provisionable: bool = False
    """True for pools that grow from zero: that no node exists now is no reason to reject."""
    resource_claim_template: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """In place of `resource`: the ResourceClaimTemplate, in the SLMDeployment's namespace, by which each pod asks for its
    device (DRA). Which nodes have one only the scheduler knows: the selector says where to look."""
    runtime_class_name: str | None = None
    """What pods of the class run by, such as `nvidia`; `spec.podTemplate` goes before it."""
    supplemental_groups: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Groups of the nodes' that may open the device's files, such as `render`'s number for `/dev/dri`."""
    env: dict[str, str] = {}
    """Variables of the serving container; `spec.runtime.env` goes before them."""

    @property
    def device(self) -> str | None:
        """What of a node a pod has for itself; None: it shares all."""
        return self.resource_claim_template if self.resource is None else self.resource.name

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> Self:
        if self.resource is not None and self.resource_claim_template is not None:
            raise ValueError(
                f"{self.name}: a class asks by resource or by resourceClaimTemplate, not by both"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_engine(cls, values: Any) -> Any:
        """Earlier versions had `engine`, of which there was one."""
        if not isinstance(values, Mapping) or "engine" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "engine"}
        return {"engines": (values["engine"],), **rest}

    @property
    def runs(self) -> tuple[EngineName, ...]:
        """Engines that can run a model on it."""
        if self.engines:
            return self.engines
        usual = (EngineName.LLAMA_CPP,)
        return (*usual, EngineName.ONNX_RUNTIME) if self.provider == "cpu" else usual


class EnvVar(SettingsModel):
    name: str
    value: str


class MirrorSettings(SettingsModel):
    source: str
    """What addresses begin with: `hf://`, `oci://docker.io/`, `https://host/path/`."""
    mirror: str
    """What is asked instead. The site names it, so no rule is held against it."""


class FetchSettings(SettingsModel):
    """What every fetch in this cluster needs to know of the site."""

    env: tuple[EnvVar, ...] = ()
    """For example PIP_INDEX_URL, HTTPS_PROXY, NO_PROXY."""
    ca_bundle: str | None = None
    """PEM text; the operator puts it beside the model where the spec names no ConfigMap of its own."""
    allowed_sources: tuple[str, ...] = (
        "https://",
        "hf://",
        "ollama://",
        "oci://",
        "s3://",
        "gs://",
        "az://",
        "pvc://",
        "pypi://",
        "catalog://",
    )
    """What may be fetched; how a rule is read: :mod:`slm_operator.model.allowed`."""
    mirrors: tuple[MirrorSettings, ...] = ()
    """The longest `source` that fits counts."""
    hosts: tuple[str, ...] = ()
    """`host` or `host:port`: all that a fetch may connect to, redirects included. Empty: whatever the sources lead to."""
    bytes_per_second: Annotated[int, Field(ge=1)] | None = None
    """The most that one fetch takes of the network."""


class CatalogVariant(SettingsModel):
    hardware: str | None = None
    """Class or family of hardware that this artifact is for; None: any."""
    quantization: Quantization | None = None
    """Number format that it is in: it is taken where a spec asks for that. None: where a spec asks for none."""
    source: str
    sha256: Annotated[str, Field(pattern="^[a-f0-9]{64}$")] | None = None
    format: ModelFormat = ModelFormat.AUTO


class CatalogEntry(SettingsModel):
    """What a name stands for."""

    source: str
    sha256: Annotated[str, Field(pattern="^[a-f0-9]{64}$")] | None = None
    format: ModelFormat = ModelFormat.AUTO
    variants: tuple[CatalogVariant, ...] = ()
    quantization: str | None = None
    parameters: str | None = None
    """How many the model has, for people: `3.8B`."""
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    license: str
    """By its SPDX identifier, or the name that its owner gave it."""
    gated: bool = False
    """Whether the source wants a token of somebody who has agreed to the license."""


class MonitoringSettings(SettingsModel):
    """What ServiceMonitors of this cluster need."""

    labels: dict[str, str] = {}
    """On every ServiceMonitor, beneath those of its SLMDeployment."""
    check_selection: bool = False
    """Whether Prometheus objects and namespaces are read, to say where none takes a ServiceMonitor."""


class AutoscalingSettings(SettingsModel):
    """What autoscalers need to know of the site."""

    prometheus: str | None = None
    """Address of the Prometheus that KEDA asks; None: a ScaledObject can't be made."""
    authentication: str | None = None
    """ClusterTriggerAuthentication that KEDA asks it with."""
    auth_modes: str | None = None
    """How, as KEDA names it: `bearer`, `basic`, `tls`."""


class Settings(SettingsModel):
    runtime_image: str
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    allowed_image_prefixes: tuple[str, ...] = ()
    """Registries and repositories of `spec.runtime.image`; the default image and those of classes may run always."""
    allowed_service_accounts: tuple[str, ...] = ()
    """ServiceAccounts that `spec.podTemplate.serviceAccountName` may name."""
    run_as_user: Annotated[int, Field(ge=1)] | None = DEFAULT_USER
    """UID and GID of model pods; None where the platform assigns them, as OpenShift does for each namespace."""
    classes: tuple[HardwareClass, ...]
    fetch: FetchSettings = FetchSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    catalog: dict[str, CatalogEntry] = {}
    """By the name that `catalog://` sources give."""
    node_cache: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_][-.A-Za-z0-9_]*)+$")] | None = None
    """Directory of the nodes for `spec.cache.mode: NodeLocal`, which is refused without."""
    autoscaling: AutoscalingSettings | None = None
    """None: `spec.autoscaling` isn't offered, and the operator has no rights to autoscalers."""
    gateways: bool = False
    """Whether `spec.endpoint.gateway` is offered; without, the operator has no rights to routes and pools."""
    namespaces: tuple[str, ...] = ()
    """Empty: the whole cluster."""
    cluster_domain: str = "cluster.local"
    workers: Annotated[int, Field(ge=1, le=64)] = 16
    upgrades_at_once: Annotated[int, Field(ge=1)] = 5
    """SLMDeployments that take a new image or bundle of this configuration at a time (`rollout.upgrade: Auto`)."""
    resync_seconds: float = 600
    poll_seconds: float = 2
    """Between two reads of a pod's report while something changes."""
