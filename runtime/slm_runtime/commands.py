"""What the commands of `slm-runtime` do. Each imports what it needs when it is run."""

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace

from pydantic import ValidationError

from slm_contract.config import ModelConfig, RuntimeConfig
from slm_contract.places import CONFIG_ENV
from slm_contract.report import FetchReport
from slm_runtime.engine.launch import Started
from slm_runtime.errors import ConfigError, RuntimeFailure
from slm_runtime.logs import configure
from slm_runtime.places import Places


def run(options: argparse.Namespace, engine: Started | None) -> int:
    """Run the command that `options` name; return its exit code.

    Parameters
    ----------
    engine
        Where a pod serves: the process that waits to be told what to load. It ends when we do.
    """
    configure()
    try:
        places = Places.from_environment()
        # As process 1 of a container a signal without a handler is ignored. What is on the volume is right at
        # every moment, so there is nothing to clean up; once it serves, another handler lets it drain.
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
        if options.command == "serve":
            return _serve(options, places, engine)
        if options.command == "fetch":
            return _fetch(places)
        if options.command == "hold":
            return _hold(places)
        if options.command == "convert":
            return _convert(options)
        return _inspect(options, places)
    except RuntimeFailure as failure:
        print(f"{failure.message}\n{failure.remedy}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def config_from_environment() -> RuntimeConfig:
    """Read the RuntimeConfig that the operator put into the pod template.

    Raises
    ------
    ConfigError
        It isn't there, or says something impossible.
    """
    text = os.environ.get(CONFIG_ENV)
    if not text:
        raise ConfigError(f"{CONFIG_ENV} is empty.", "Name a model: `slm-runtime serve --source URI`.")
    try:
        return RuntimeConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ConfigError(f"{CONFIG_ENV} can't be used: {where}: {first['msg']}.") from None


def _fetch(places: Places) -> int:
    from slm_runtime.fetching.command import fetch_command
    from slm_runtime.models.sources.site import Site
    from slm_runtime.termination import leave

    try:
        config = config_from_environment()
        return fetch_command(config.model, Site(places), config.companions)
    except RuntimeFailure as failure:
        leave(FetchReport(command="fetch", failure=failure.to_failure()), places.termination_message)
        raise


def _hold(places: Places) -> int:
    from slm_runtime.models.folder import ModelFolder

    config = config_from_environment()
    with ExitStack() as stack:
        for each in (config.model, *config.companions):
            folder = ModelFolder(places.model_dir, each)
            stack.enter_context(folder.served())
            folder.require()
        while True:
            signal.pause()


def _inspect(options: argparse.Namespace, places: Places) -> int:
    from slm_runtime.fetching.inspect import inspect, inspect_command, table
    from slm_runtime.models.sources.site import Site
    from slm_runtime.termination import leave

    if options.source is None:
        try:
            return inspect_command(config_from_environment().model, Site(places))
        except ConfigError as failure:
            leave(FetchReport(command="inspect", failure=failure.to_failure()), places.termination_message)
            raise
    facts = inspect(options.source, Site(places))
    print(facts.to_json() if options.json else table(facts))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from slm_runtime.converting.command import convert_command

    return convert_command(options.source, options.target, options.precision)


def _serve(options: argparse.Namespace, places: Places, engine: Started | None) -> int:
    from slm_runtime.serve import main as serve

    if engine is not None:
        return serve(config_from_environment(), _moved(options, places), engine)
    from slm_runtime.local import fetch_local, local_adapter, local_config, local_places, local_projector

    places = _moved(options, local_places(places))
    settings = {
        "adapters": [local_adapter(each) for each in options.adapter] if options.adapter else None,
        "projector": local_projector(options.projector) if options.projector else None,
        "context_length": options.context_length,
        "parallel": options.parallel,
        "threads": options.threads,
        "kv_cache_type": options.kv_cache_type,
        "speculation": {"On": True, "Off": False}.get(options.speculation),
        "stored_responses": options.stored_responses,
        "image_origins": options.image_origin,
    }
    source = options.source or options.model.resolve().as_uri()
    config = local_config(
        ModelConfig(
            name=options.name or source.rsplit("/", 1)[-1].removesuffix(".gguf"),
            source=source,
            sha256=options.sha256,
        ),
        {name: value for name, value in settings.items() if value is not None},
        places.host,
    )
    fetch_local(config, places)
    return serve(config, places)


def _moved(options: argparse.Namespace, places: Places) -> Places:
    """Let what was written on the command line win."""
    given = {"host": options.host, "api_port": options.port, "ops_port": options.ops_port}
    return replace(places, **{name: value for name, value in given.items() if value is not None})
