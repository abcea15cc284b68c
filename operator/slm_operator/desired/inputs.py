"""What the builders build from: the parsed resource, what was decided for it, and the operator's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_contract.config import HardwareConfig, ModelConfig, PromptConfig, PromptParameters, RuntimeConfig
from slm_contract.report import ModelFacts
from slm_operator.crd.names import labels
from slm_operator.crd.prompt import Prompt
from slm_operator.crd.quantities import parse_duration, parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import Cache, CacheMode, FlashAttention
from slm_operator.digest import digest
from slm_operator.placement.history import Record
from slm_operator.settings import HardwareClass, Settings

_DEFAULTS = RuntimeConfig(model=ModelConfig(name="-", source="-"))
_FLASH_ATTENTION = {FlashAttention.AUTO: None, FlashAttention.ENABLED: True, FlashAttention.DISABLED: False}


@dataclass(frozen=True)
class Rendering:
    """A pod template's whole input: equal inputs give equal templates."""

    resource: SLMDeployment
    settings: Settings
    hardware_class: HardwareClass
    artifact: ModelConfig
    record: Record
    facts: ModelFacts | None = None

    @property
    def config(self) -> RuntimeConfig:
        """What the runtime is told; everything automatic is settled here or left to what only the container knows."""
        spec, chosen = self.resource.spec, self.hardware_class
        keep_alive = spec.runtime.keep_alive
        return RuntimeConfig(
            model=self.artifact,
            engine=chosen.engine,
            hardware=HardwareConfig(
                hardware_class=chosen.name,
                provider=chosen.provider,
                gpu_layers=(spec.runtime.gpu_layers or chosen.gpu_layers) if chosen.gpu_layers else 0,
                on_degraded=spec.hardware.on_degraded,
            ),
            context_length=spec.runtime.context_length or self.record.context_length,
            parallel=spec.runtime.parallel or _DEFAULTS.parallel,
            kv_cache_type=spec.runtime.kv_cache_type or _DEFAULTS.kv_cache_type,
            batch_size=spec.runtime.batch_size or _DEFAULTS.batch_size,
            threads=spec.runtime.threads,
            flash_attention=_FLASH_ATTENTION[spec.runtime.flash_attention],
            prompt=None if spec.model.prompt is None else _prompt(spec.model.prompt),
            keep_alive_seconds=None if keep_alive is None else max(1.0, parse_duration(keep_alive)),
            allowed_origins=_origins(self.resource),
            auth=spec.auth.mode,
        )


def _origins(resource: SLMDeployment) -> tuple[str, ...] | None:
    cors = resource.spec.endpoint.cors
    return None if cors is None else cors.allowed_origins


def _prompt(prompt: Prompt) -> PromptConfig:
    parameters = prompt.parameters
    return PromptConfig(
        system=prompt.system,
        template=prompt.template,
        stop=prompt.stop or None,
        parameters=None if parameters is None else PromptParameters(**parameters.model_dump()),
    )


def child(
    resource: SLMDeployment, api_version: str, kind: str, name: str, component: str = "runtime"
) -> dict[str, Any]:
    """The head that every child has: names, labels, its owner. Nothing of the resource's own metadata is copied."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": resource.metadata.namespace,
            "labels": labels(resource.name, component),
            "ownerReferences": [resource.owner_reference],
        },
    }


def uses_claim(cache: Cache) -> bool:
    """Whether the model is kept in a claim rather than in each pod."""
    asked = cache.claim_name is not None or cache.storage_class_name is not None
    return cache.mode is CacheMode.PVC or (cache.mode is CacheMode.AUTO and asked)


def shares_volume(cache: Cache) -> bool:
    """Whether pods on several nodes can have the model's volume at once."""
    return not uses_claim(cache) or "ReadWriteMany" in cache.access_modes


def memory_given(resource: SLMDeployment) -> int | None:
    """Bytes that `spec.resources` gives a replica; None where they are fitted."""
    given = resource.spec.resources
    if given is None:
        return None
    text = given.limits.get("memory", given.requests.get("memory"))
    return None if text is None else int(parse_quantity(text))


def spec_digest(resource: SLMDeployment) -> str:
    """The parts of a spec that reach the pod template.

    What stands at its default doesn't count, so that a field which a later version adds rolls nothing.
    """
    spec = resource.spec
    parts = spec.model_dump(
        mode="json",
        exclude_defaults=True,
        include={"model": True, "runtime": True, "resources": True, "cache": True, "auth": True},
    )
    hardware = spec.hardware.model_dump(
        mode="json", exclude_defaults=True, include={"on_degraded", "node_selector", "tolerations"}
    )
    origins = _origins(resource)
    return digest(
        {
            "name": resource.model_name,
            "spec": parts,
            "hardware": hardware,
            **({"origins": origins} if origins else {}),
        }
    )


def bundle_digest(hardware_class: HardwareClass) -> str:
    """A class without its image, which has rules of its own."""
    return digest(
        hardware_class.model_dump(
            mode="json", exclude_defaults=True, exclude={"image", "family", "provisionable"}
        )
    )


def inputs_digest(resource: SLMDeployment, hardware_class: HardwareClass) -> str:
    """While it is the same, the live template stays as it is, whatever this version would render."""
    return f"{spec_digest(resource)}.{bundle_digest(hardware_class)}"


def site_digest(settings: Settings) -> str:
    """What the site adds to a pod. It rolls nothing that runs; what fails is rendered anew when it changes."""
    fetch: Mapping[str, Any] = settings.fetch.model_dump(mode="json", include={"env", "ca_bundle"})
    return digest(
        {
            "fetch": fetch,
            "image": settings.runtime_image,
            "images": [each.image for each in settings.classes],
            "pull": [settings.image_pull_policy, *settings.image_pull_secrets],
        }
    )
