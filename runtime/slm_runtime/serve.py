"""`slm-runtime serve`: the life of a serving process, from its sockets to its last answer.

bind ── launch engine ──┬── import the API ──┬── first tokens ── READY ── SIGTERM ── drain ── finish ── end
                        └── load the model ──┘
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from slm_contract import kv
from slm_contract import places as contract
from slm_contract.config import AuthMode, PromptConfig, PromptParameters, RuntimeConfig
from slm_contract.context import default_context, longest_context
from slm_contract.report import ModelFacts, RuntimeReport
from slm_runtime.engine.launch import Started, launch
from slm_runtime.engine.loading import AdapterFile, EngineConfig, EngineKind, Offload
from slm_runtime.errors import ConfigError, RuntimeFailure
from slm_runtime.listeners import listen
from slm_runtime.logs import configure
from slm_runtime.models.encrypted import PlainVolume
from slm_runtime.models.folder import FetchedModel, ModelFolder
from slm_runtime.places import Places
from slm_runtime.termination import leave

_log = logging.getLogger("slm.serve")

DEVICE_RESERVE: Final = 256 << 20
"""Of an accelerator's memory, for what its driver and its kernels take."""
_ENGINES: Final[Mapping[str, EngineKind]] = {"GGUF": "LlamaCpp", "ONNX": "OnnxRuntime"}
"""What runs a format."""


def main(config: RuntimeConfig, places: Places | None = None, engine: Started | None = None) -> int:
    """Serve until told to stop; return the process's exit code. `engine`: one that waits to be told what to load."""
    configure()
    try:
        places = places or Places.from_environment()
        return _serve(config, places, engine)
    except RuntimeFailure as failure:
        _log.error(failure.message, extra={"fields": {"remedy": failure.remedy}})
        report = RuntimeReport(command="serve", phase="Failed", failure=failure.to_failure())
        leave(report, (places or Places()).termination_message)
        return failure.exit_code


def _serve(config: RuntimeConfig, places: Places, started: Started | None) -> int:
    with contextlib.ExitStack() as stack:
        fetched = []
        for each in (config.model, *config.companions):
            folder = ModelFolder(places.model_dir, each)
            stack.enter_context(folder.served())
            fetched.append(folder.require())
        return _serve_model(config, places, fetched, started)


def _serve_model(
    config: RuntimeConfig, places: Places, fetched: Sequence[FetchedModel], started: Started | None
) -> int:
    model, *companions = fetched
    config = config.model_copy(update={"prompt": prompt_of(config.prompt, model.prompt)})
    check_context(config, model.facts)
    plain = PlainVolume(places.plain_dir, places.identities)
    api = listen(places.host, places.api_port)
    ops = listen(places.host, places.ops_port)
    engine = engine_config(config, model, plain.path(model), [plain.path(each) for each in companions])
    launched = launch(engine) if started is None else started.load(engine)
    # What follows takes as long to import as the engine needs to load: side by side.
    from slm_runtime.api.http.auth import KeyRing
    from slm_runtime.api.serving import Serving
    from slm_runtime.api.spans import OtlpSpans
    from slm_runtime.engine.supervisor import EngineSupervisor
    from slm_runtime.life import live

    supervisor = EngineSupervisor(engine, launched=launched, keep_alive=config.keep_alive_seconds)
    keys = KeyRing(places.keys_dir) if config.auth is AuthMode.API_KEY else None
    serving = Serving(
        config=config,
        model=model.facts,
        adapters=[each.facts for each in companions[: len(config.adapters or ())]],
        projector=None if config.projector is None else companions[-1].facts,
        engine=supervisor,
        keys=keys,
        local=places.local,
        spans=None if config.trace_endpoint is None else OtlpSpans(config.trace_endpoint, config.model.name),
    )
    try:
        live(serving, api, ops)
    finally:
        if serving.spans is not None:
            serving.spans.close()
    return contract.ExitCode.OK


def check_context(config: RuntimeConfig, facts: ModelFacts) -> None:
    """Refuse a context that the model wasn't trained for: beyond it, models write nonsense.

    Raises
    ------
    ConfigError
    """
    reach = longest_context(facts)
    if reach is not None and config.context_length is not None and reach < config.context_length:
        raise ConfigError(
            f"A context of {config.context_length} tokens is longer than the {reach} that the model was trained for, or "
            "that its RoPE scaling reaches.",
            "Ask for less, or leave the context's length out.",
        )


def prompt_of(spec: PromptConfig | None, source: PromptConfig | None) -> PromptConfig | None:
    """What the source says of the prompt, and the spec's own words in its place, field by field."""
    if spec is None or source is None:
        return spec or source
    merged = source.model_copy(update=_said(spec))
    if spec.parameters is None or source.parameters is None:
        return merged
    parameters = source.parameters.model_copy(update=_said(spec.parameters))
    return merged.model_copy(update={"parameters": parameters})


def _said(model: PromptConfig | PromptParameters) -> dict[str, object]:
    return {name: value for name, value in model if value is not None}


def engine_config(
    config: RuntimeConfig, model: FetchedModel, path: Path, companions: Sequence[Path]
) -> EngineConfig:
    """`path`: of the model's file in plain; `companions`: those of `config.companions`, in their order."""
    named = config.adapters or ()
    return EngineConfig(
        engine=_ENGINES[model.facts.format],
        model_path=str(path),
        own_adapters=[AdapterFile(str(model.beside(each))) for each in model.facts.own_adapters or ()],
        adapters=[
            AdapterFile(str(file), adapter.scale)
            for file, adapter in zip(companions[: len(named)], named, strict=True)
        ],
        projector=None if config.projector is None else str(companions[-1]),
        context_length=config.context_length,
        parallel=config.parallel,
        kv_cache_type=config.kv_cache_type.value,
        kv_cells=_kv_cells(config, model.facts),
        flash_attention=config.flash_attention,
        speculation=config.speculation,
        batch_size=config.batch_size,
        threads=config.threads,
        provider=config.hardware.provider,
        gpu_layers=config.hardware.gpu_layers,
        devices=list(config.hardware.devices or ()),
        offload=offload_of(config, model.facts) if config.hardware.gpu_layers else None,
    )


def offload_of(config: RuntimeConfig, facts: ModelFacts) -> Offload:
    """What the model takes of an accelerator; keys and values are where their layers are."""
    cells = _kv_cells(config, facts) or kv.padded(
        (config.context_length or default_context(facts)) * config.parallel
    )
    cache = kv.cache_bytes(facts, config.kv_cache_type, cells, config.parallel, config.batch_size)
    layers = facts.block_count + 1
    outputs = facts.vocab_size * config.parallel
    computed = (facts.activations or facts.feed_forward_length * 4) * config.batch_size + outputs
    return Offload(layers, int(facts.weights_bytes + cache) // layers, computed * 4 + DEVICE_RESERVE)


def _kv_cells(config: RuntimeConfig, facts: ModelFacts) -> int | None:
    """None: as many as all requests may need."""
    if config.kv_cache_bytes is None:
        return None
    context_length = config.context_length or default_context(facts)
    return kv.cells(
        facts,
        config.kv_cache_type,
        context_length,
        config.parallel,
        config.batch_size,
        limit=config.kv_cache_bytes,
    )
