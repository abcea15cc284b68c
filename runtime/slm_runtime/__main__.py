"""`slm-runtime fetch | serve | hold | inspect | convert | bench`: one program, what it does in a pod and on a desk."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from slm_contract.config import ModelConfig, RuntimeConfig
from slm_contract.places import CONFIG_ENV
from slm_contract.report import FetchReport
from slm_runtime.errors import ConfigError, RuntimeFailure
from slm_runtime.logs import configure
from slm_runtime.places import Places, port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code (`slm_contract.places.ExitCode`)."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["bench"]:
        code: int = import_module("slm_runtime.bench").main(words[1:])
        return code
    options = parser().parse_args(words)
    configure()
    try:
        places = Places.from_environment()
        # As process 1 of a container a signal without a handler is ignored. What is on the volume is right at
        # every moment, so there is nothing to clean up; once it serves, another handler lets it drain.
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
        if options.command == "serve":
            return _serve(options, places)
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


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="slm-runtime", description="Fetches one small language model and serves it."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("fetch", help=f"bring the model of ${CONFIG_ENV} onto the model volume")
    commands.add_parser("hold", help=f"keep the fetched model of ${CONFIG_ENV} from being removed")
    inspect = commands.add_parser(
        "inspect", help="say what a model's header tells, without fetching the model"
    )
    inspect.add_argument("source", nargs="?", help=f"a URI or a file; default: the model of ${CONFIG_ENV}")
    inspect.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    serve = commands.add_parser(
        "serve", help=f"serve the model of ${CONFIG_ENV}, or the one named here, on localhost"
    )
    named = serve.add_mutually_exclusive_group()
    named.add_argument(
        "--source", help="a URI: fetched into the user's cache first, where it isn't there yet"
    )
    named.add_argument("--model", type=Path, help="a local GGUF file")
    serve.add_argument("--sha256", help="of the model file at --source")
    serve.add_argument(
        "--adapter",
        action="append",
        metavar="NAME=SOURCE",
        help="a LoRA adapter, a GGUF file or a URI, and the name that clients ask for; may be given several times",
    )
    serve.add_argument(
        "--projector",
        metavar="SOURCE",
        help="the GGUF file (mmproj), or its URI, with which the model sees images",
    )
    serve.add_argument("--name", help="the name that clients ask for; default: the file's")
    serve.add_argument("--host", help="the address to listen on; default: 127.0.0.1")
    serve.add_argument("--port", type=port, help="of the APIs; default: 8080")
    serve.add_argument("--ops-port", type=port, help="of probes, metrics and report; default: 8081")
    serve.add_argument("--context-length", type=int, help="tokens that a request may hold")
    serve.add_argument("--parallel", type=int, help="requests decoded together")
    serve.add_argument(
        "--threads",
        type=int,
        help="of the engine; default: the cores that this process may use, of one memory node",
    )
    serve.add_argument("--kv-cache-type", choices=["f16", "q8_0", "q4_0"])
    serve.add_argument(
        "--speculation",
        choices=["Auto", "On", "Off"],
        help="guess ahead what comes next, while it pays; default: Auto, on accelerators",
    )
    serve.add_argument("--stored-responses", type=int, help="so many are kept, in memory; default: none is")
    convert = commands.add_parser("convert", help="make an ONNX folder of a model")
    convert.add_argument(
        "source", type=Path, help="a GGUF file, or a folder with config.json and safetensors"
    )
    convert.add_argument("target", type=Path, help="the folder to make; there must be none yet")
    convert.add_argument(
        "--precision",
        choices=["int4", "int8", "fp16", "fp32"],
        default="int4",
        help="of the weights; default: int4, in blocks of 32. fp16 is for GPUs",
    )
    commands.add_parser("bench", help="measure the runtime; `slm-runtime bench --help` lists what")
    return top


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


def _serve(options: argparse.Namespace, places: Places) -> int:
    from slm_runtime.serve import main as serve

    if options.source is None and options.model is None:
        return serve(config_from_environment(), _moved(options, places))
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


if __name__ == "__main__":
    sys.exit(main())
