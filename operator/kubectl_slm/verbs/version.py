"""`kubectl slm version`: of this program, and whether the cluster's API has all that it speaks of."""

import argparse
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from kubectl_slm import output
from kubectl_slm.cluster import RESOURCE, Cluster
from kubectl_slm.errors import CommandError, Exit
from slm_operator.crd.names import VERSION

HELP: Final = "of this program, and what the cluster's API lacks of it"
_LISTED: Final = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--client", action="store_true", help="of this program alone; asks no cluster")
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where the cluster's CRD is older."""
    told: dict[str, Any] = {"client": _own(), "api": VERSION}
    if not args.client:
        told |= _in_cluster(Cluster.of(args))
    if output.emit(told, args.output):
        return Exit.NO if told.get("lacks") else Exit.OK
    print(output.facts([("Program", f"{told['client']}, API {VERSION}"), ("Cluster", told.get("served"))]))
    lacks = told.get("lacks") or []
    if lacks:
        more = f"\nand {len(lacks) - _LISTED} more" if len(lacks) > _LISTED else ""
        words = "\n".join(lacks[:_LISTED])
        raise CommandError(
            f"the cluster's CRD is older: it lacks\n{words}{more}",
            "upgrade the chart, or apply its CRD (docs/install.md)",
        )
    return Exit.OK


def _own() -> str:
    try:
        return version("slm-operator")
    except PackageNotFoundError:
        return "unknown"


def _in_cluster(cluster: Cluster) -> dict[str, Any]:
    from slm_operator.crd.schema import crd

    found = cluster.get("customresourcedefinition", RESOURCE)
    served = {each["name"]: each for each in found["spec"]["versions"] if each.get("served")}
    if VERSION not in served:
        raise CommandError(
            f"the cluster's CRD serves {', '.join(served) or 'no version'}, this program speaks {VERSION}",
            "upgrade the chart, or take the program of the cluster's version",
        )
    (ours,) = crd()["spec"]["versions"]
    return {"served": ", ".join(served), "lacks": list(lacking(_schema(ours), _schema(served[VERSION])))}


def _schema(each: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = each["schema"]["openAPIV3Schema"]
    return found


def lacking(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths of fields that one schema has and the other hasn't; what is below a missing one isn't listed."""
    known = theirs.get("properties") or {}
    for name, schema in (ours.get("properties") or {}).items():
        if name in known:
            yield from lacking(schema, known[name], f"{path}{name}.")
        else:
            yield f"{path}{name}"
    if "items" in ours and "items" in theirs:
        yield from lacking(ours["items"], theirs["items"], f"{path.removesuffix('.')}[].")
