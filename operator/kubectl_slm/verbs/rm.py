"""`kubectl slm rm NAME`: take one away, with all that it owns."""

import argparse
import sys
from typing import Final

from kubectl_slm.cluster import RESOURCE, Cluster
from kubectl_slm.errors import CommandError, Exit

HELP: Final = "take one away, with all that it owns"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="of an SLMDeployment")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask first")


def run(args: argparse.Namespace) -> int:
    cluster = Cluster.of(args)
    found = [cluster.deployment(name) for name in args.names]
    for each in found:
        name, namespace = each["metadata"]["name"], each["metadata"]["namespace"]
        if not args.yes and not _agreed(f"{namespace}/{name}: take it away, its key and its own claim too?"):
            print(f"{name} stays")
            continue
        cluster.delete(RESOURCE, name)
        print(f"{name} goes")
    return Exit.OK


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("nobody can be asked whether it may go", "write --yes", Exit.USAGE)
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
