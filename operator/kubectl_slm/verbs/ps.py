"""`kubectl slm ps`: the models that are in memory, and on what."""

import argparse
from typing import Final

from kubectl_slm import output, read
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import Exit

HELP: Final = "the models that are in memory, where, and how much they take"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of the whole cluster")
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    found = [
        each
        for each in Cluster.of(args).deployments(everywhere=args.all_namespaces)
        if read.part(each, "readyReplicas")
    ]
    rows = [_row(each) for each in found]
    names = ("namespace", "name", "model", "memory", "device", "context", "nodes", "endpoint")
    if not output.emit([dict(zip(names, row, strict=True)) for row in rows], args.output):
        shown = 0 if args.all_namespaces else 1
        print(output.table([name.upper() for name in names[shown:]], [row[shown:] for row in rows]))
    return Exit.OK


def _row(document: read.Document) -> list[str]:
    return [
        read.namespace_of(document),
        read.name_of(document),
        read.text(document, "display", "model") or read.model_name(document),
        read.text(document, "memory", "request"),
        read.text(document, "acceleration", "device") or read.text(document, "placement", "selected"),
        read.text(document, "model", "contextLength"),
        ",".join(read.part(document, "nodes") or ()),
        read.text(document, "endpoint"),
    ]
