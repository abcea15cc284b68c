"""`kubectl slm pull MODEL`: bring a model to where it will be needed, and serve it to nobody yet."""

import argparse
from typing import Any, Final

from kubectl_slm import read
from kubectl_slm.cluster import Cluster
from kubectl_slm.deploying import made, name_for, source_of
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.output import size
from kubectl_slm.waiting import wait

HELP: Final = "fetch and verify a model into a claim, or onto nodes, before it is needed"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a name of the catalog, or a source: hf://…")
    parser.add_argument(
        "--name", help="of the SLMDeployment that is made, suspended; without it, made of the model's"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--claim", metavar="NAME", help="into this PersistentVolumeClaim")
    where.add_argument("--size", metavar="QUANTITY", help="into a claim of its own, of this size: 5Gi")
    where.add_argument("--nodes", action="store_true", help="onto the disks of all nodes that would serve it")
    parser.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="how long to wait (3600)"
    )


def run(args: argparse.Namespace) -> int:
    name, cluster = args.name or name_for(args.model), Cluster.of(args)
    spec = {"model": {"source": source_of(args.model)}, "cache": _cache(args), "suspend": True}
    if not made(cluster, name, spec) and not cluster.deployment(name)["spec"].get("cache"):
        raise CommandError(
            f"{name} is there already, and keeps its model in its pods", "give another --name", Exit.NO
        )
    document = wait(cluster, name, args.timeout)
    where = read.text(document, "cache", "claim") or "the nodes"
    print(f"{name} lies on {where}: {size(read.part(document, 'model', 'sizeBytes')) or 'verified'}")
    print(f"serve it with: kubectl slm run {args.model} --name {name}")
    return Exit.OK


def _cache(args: argparse.Namespace) -> dict[str, Any]:
    if args.nodes:
        return {"mode": "NodeLocal", "prePull": True}
    return {"mode": "PVC", **({"claimName": args.claim} if args.claim else {"size": args.size})}
