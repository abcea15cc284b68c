"""`kubectl slm list`: what is deployed, one line each."""

import argparse
from typing import Final

from kubectl_slm import output, read
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import Exit

HELP: Final = "what is deployed, and whether it serves"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of the whole cluster")
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    found = Cluster.of(args).deployments(everywhere=args.all_namespaces)
    if output.emit([_summary(each) for each in found], args.output):
        return Exit.OK
    if not found:
        print(
            "no SLMDeployment here: `kubectl slm list -A` looks everywhere, `kubectl slm run MODEL` makes one"
        )
        return Exit.OK
    namespaces = ["NAMESPACE"] if args.all_namespaces else []
    headers = [*namespaces, "NAME", "MODEL", "READY", "DEVICE", "STATUS", "SIZE", "TOK/S", "AGE"]
    rows = [row[0 if args.all_namespaces else 1 :] for row in map(_row, found)]
    print(output.table(headers, rows, status=headers.index("STATUS")))
    return Exit.OK


def _row(document: read.Document) -> list[str]:
    speed = read.part(document, "performance", "tokensPerSecond")
    return [
        read.namespace_of(document),
        read.name_of(document),
        read.text(document, "display", "model") or read.model_name(document),
        read.text(document, "display", "ready"),
        read.text(document, "placement", "selected"),
        read.reason(document),
        output.size(read.part(document, "model", "sizeBytes")),
        "" if speed is None else f"{speed:.0f}",
        output.age(document["metadata"].get("creationTimestamp")),
    ]


def _summary(document: read.Document) -> dict[str, object]:
    return {
        "namespace": read.namespace_of(document),
        "name": read.name_of(document),
        "model": read.model_name(document),
        "source": document["spec"]["model"].get("source"),
        "replicas": document["spec"].get("replicas", 1),
        "readyReplicas": read.part(document, "readyReplicas") or 0,
        "hardware": read.part(document, "placement", "selected"),
        "status": read.reason(document),
        "sizeBytes": read.part(document, "model", "sizeBytes"),
        "tokensPerSecond": read.part(document, "performance", "tokensPerSecond"),
        "endpoint": read.part(document, "endpoint"),
    }
