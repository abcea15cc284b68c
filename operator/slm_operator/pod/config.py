"""What the runtime in a pod is told; everything automatic is settled here or left to what only the container knows."""

from typing import Any, Final

from slm_contract.config import (
    CanaryConfig,
    HardwareConfig,
    ModelConfig,
    PromptConfig,
    PromptMessage,
    PromptParameters,
    RuntimeConfig,
)
from slm_operator.crd.observability import Canary
from slm_operator.crd.prompt import Prompt
from slm_operator.crd.quantities import parse_duration, parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import FlashAttention, Speculation
from slm_operator.model.engines import engine_of
from slm_operator.revision.revision import Revision

_DEFAULTS: Final = RuntimeConfig(model=ModelConfig(name="-", source="-"))
_FLASH_ATTENTION: Final = {
    FlashAttention.AUTO: None,
    FlashAttention.ENABLED: True,
    FlashAttention.DISABLED: False,
}
_SPECULATION: Final = {Speculation.AUTO: None, Speculation.ON: True, Speculation.OFF: False}


def runtime_config(resource: SLMDeployment, revision: Revision) -> RuntimeConfig:
    """For `slm-runtime fetch` and `serve`."""
    spec, chosen = resource.spec, revision.hardware_class
    keep_alive, cors, idle = spec.runtime.keep_alive, spec.endpoint.cors, spec.endpoint.idle_timeout
    kv_memory, metrics = spec.runtime.kv_cache_memory, spec.observability.metrics
    tracing = spec.observability.tracing
    return RuntimeConfig(
        model=revision.artifact,
        adapters=revision.adapters or None,
        projector=revision.projector,
        engine=engine_of(revision.artifact, revision.artifact_facts) or _DEFAULTS.engine,
        hardware=HardwareConfig(
            hardware_class=chosen.name,
            provider=chosen.provider,
            gpu_layers=(spec.runtime.gpu_layers or chosen.gpu_layers) if chosen.gpu_layers else 0,
            devices=spec.runtime.devices or None if chosen.gpu_layers else None,
            on_degraded=spec.hardware.on_degraded,
        ),
        context_length=spec.runtime.context_length or revision.context_length,
        parallel=spec.runtime.parallel or _DEFAULTS.parallel,
        kv_cache_type=spec.runtime.kv_cache_type or _DEFAULTS.kv_cache_type,
        kv_cache_bytes=None if kv_memory is None else max(1, int(parse_quantity(kv_memory))),
        batch_size=spec.runtime.batch_size or _DEFAULTS.batch_size,
        threads=spec.runtime.threads,
        flash_attention=_FLASH_ATTENTION[spec.runtime.flash_attention],
        speculation=_SPECULATION[spec.runtime.speculation],
        prompt=None if spec.model.prompt is None else _prompt(spec.model.prompt),
        keep_alive_seconds=None if keep_alive is None else max(1.0, parse_duration(keep_alive)),
        allowed_origins=None if cors is None else cors.allowed_origins,
        idle_seconds=None if idle is None else max(1.0, parse_duration(idle)),
        unknown_fields="Refuse" if spec.endpoint.unknown_fields == "Refuse" else None,
        stored_responses=spec.endpoint.stored_responses,
        image_origins=spec.endpoint.image_origins or None,
        trusted_proxies=spec.endpoint.trusted_proxies or None,
        metric_aliases=None if metrics is None else metrics.aliases or None,
        trace_endpoint=None if tracing is None else tracing.endpoint,
        canaries=tuple(map(canary_config, spec.observability.canary)) or None,
        auth=spec.auth.mode,
    )


def canary_config(canary: Canary) -> CanaryConfig:
    """As the runtime is told it; what isn't said is left to the contract's defaults."""
    expect = canary.expect
    given: dict[str, Any] = {} if canary.every is None else {"every_seconds": parse_duration(canary.every)}
    if canary.max_tokens is not None:
        given["max_tokens"] = canary.max_tokens
    return CanaryConfig(
        name=canary.name,
        prompt=canary.prompt,
        contains=expect.contains,
        regex=expect.regex,
        json_schema=expect.json_schema,
        same_as_first=True if expect.same_as_first else None,
        **given,
    )


def _prompt(prompt: Prompt) -> PromptConfig:
    parameters = prompt.parameters
    return PromptConfig(
        system=prompt.system,
        template=prompt.template,
        stop=prompt.stop or None,
        parameters=None if parameters is None else PromptParameters(**parameters.model_dump()),
        messages=tuple(PromptMessage(role=each.role, content=each.content) for each in prompt.messages)
        or None,
    )
