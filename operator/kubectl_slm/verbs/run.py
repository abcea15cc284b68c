"""`kubectl slm run MODEL`: from nothing to a conversation."""

import argparse
import sys
from typing import Any, Final

from kubectl_slm import output
from kubectl_slm.cluster import Cluster, manifest
from kubectl_slm.deploying import made, name_for, source_of
from kubectl_slm.errors import Exit
from kubectl_slm.verbs import chat
from kubectl_slm.waiting import wait

HELP: Final = "deploy a model, wait until it serves, and talk with it"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a name of the catalog (`models` lists them), or a source: hf://…"
    )
    chat.takes_prompt(parser)
    parser.add_argument("--name", help="of the SLMDeployment; without it, made of the model's")
    parser.add_argument("--hardware", metavar="CLASS,…", help="classes or families, the best first: gpu,cpu")
    parser.add_argument("--replicas", type=int, help="pods that serve it")
    parser.add_argument("--context-length", type=int, metavar="TOKENS", help="that one request may hold")
    parser.add_argument("--quantization", metavar="FORMAT", help="number format of its weights: Q4_K_M, Auto")
    parser.add_argument("--no-chat", action="store_true", help="only wait")
    parser.add_argument("--no-wait", action="store_true", help="only deploy it")
    parser.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="how long to wait (3600)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the manifest, and do nothing")
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    name, spec = args.name or name_for(args.model), _spec(args)
    if args.dry_run:
        output.emit(manifest(name, spec), args.output or "yaml")
        return Exit.OK
    cluster = Cluster.of(args)
    if made(cluster, name, spec):
        print(f"{name}: deployed as asked", file=sys.stderr)
    if args.no_wait:
        return Exit.OK
    document = wait(cluster, name, args.timeout)
    if args.no_chat:
        output.emit(document, args.output)
        return Exit.OK
    args.name = name
    return chat.run(args)


def _spec(args: argparse.Namespace) -> dict[str, Any]:
    """Nothing but what was said: the operator decides the rest."""
    model: dict[str, Any] = {"source": source_of(args.model)}
    spec: dict[str, Any] = {"model": model}
    if args.quantization:
        model["quantization"] = args.quantization
    if args.hardware:
        spec["hardware"] = {"preference": args.hardware.split(",")}
    if args.replicas is not None:
        spec["replicas"] = args.replicas
    if args.context_length is not None:
        spec["runtime"] = {"contextLength": args.context_length}
    return spec
