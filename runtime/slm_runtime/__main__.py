"""`slm-runtime fetch | serve | hold | inspect | convert | bench`: one program, what it does in a pod and on a desk.

Imports nothing that takes long: the engine process starts first, and imports what it needs beside us.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from slm_contract.places import CONFIG_ENV
from slm_runtime.engine.launch import start
from slm_runtime.ports import port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code (`slm_contract.places.ExitCode`)."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["bench"]:
        code: int = import_module("slm_runtime.bench").main(words[1:])
        return code
    options = parser().parse_args(words)
    in_pod = options.command == "serve" and options.source is None and options.model is None
    engine = start() if in_pod else None
    from slm_runtime.commands import run

    return run(options, engine)


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
    serve.add_argument(
        "--image-origin",
        action="append",
        metavar="ORIGIN",
        help="from which images are fetched that clients name by URL; may be repeated, default: none",
    )
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


if __name__ == "__main__":
    sys.exit(main())
