"""`kubectl slm top`: what every model does right now."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from kubectl_slm import output
from kubectl_slm.asking.proxy import Proxy
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.exposition import Figures, figures
from slm_contract.places import METRICS_PATH, OPS_PORT, REPORT_PATH
from slm_operator.crd.names import COMPONENT_LABEL, INSTANCE_LABEL, MANAGED_BY, MANAGED_BY_LABEL

HELP: Final = "tokens/s, queue, cache and memory of every model"
_SELECTOR: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY},{COMPONENT_LABEL}=runtime"
_AT_ONCE: Final = 8

Pods = Mapping[tuple[str, str], list[str]]
"""Paths of ready pods at the API server, by namespace and name of their SLMDeployment."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of the whole cluster")
    parser.add_argument("-w", "--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="between the two readings that speed is computed of (1)"
    )
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    cluster = Cluster.of(args)
    pods = _pods(cluster, args)
    if not pods:
        print("no model serves here: `kubectl slm list -A` shows what there is", file=sys.stderr)
        return Exit.NO
    with cluster.proxy() as proxy, ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            _show(_measure(proxy, pool, pods, args.seconds), args)
            if not args.watch:
                return Exit.OK
            pods = _pods(cluster, args)


def _pods(cluster: Cluster, args: argparse.Namespace) -> Pods:
    found: dict[tuple[str, str], list[str]] = {}
    for pod in cluster.get("pods", everywhere=args.all_namespaces, selector=_SELECTOR)["items"]:
        metadata, told = pod["metadata"], pod.get("status", {}).get("conditions") or ()
        name = metadata["labels"][INSTANCE_LABEL]
        if (args.names and name not in args.names) or not any(
            each["type"] == "Ready" and each["status"] == "True" for each in told
        ):
            continue
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{OPS_PORT}/proxy"
        found.setdefault((metadata["namespace"], name), []).append(path)
    return found


def _measure(proxy: Proxy, pool: ThreadPoolExecutor, pods: Pods, seconds: float) -> list[dict[str, Any]]:
    paths = [path for each in pods.values() for path in each]
    began, first = (
        time.monotonic(),
        dict(zip(paths, pool.map(lambda path: _read(proxy, path), paths), strict=True)),
    )
    memory = dict(zip(paths, pool.map(lambda path: _resident(proxy, path), paths), strict=True))
    time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    between = time.monotonic() - began
    last = dict(zip(paths, pool.map(lambda path: _read(proxy, path), paths), strict=True))
    rows = []
    for (namespace, name), mine in sorted(pods.items()):
        answering = [path for path in mine if first[path] is not None and last[path] is not None]
        before, now = _sum(first[path] for path in answering), _sum(last[path] for path in answering)
        rows.append(
            {
                "namespace": namespace,
                "name": name,
                "pods": len(mine),
                "answering": len(answering),
                "loaded": int(now.loaded),
                "tokensPerSecond": round((now.generated - before.generated) / between, 1),
                "running": int(now.running),
                "waiting": int(now.waiting),
                "cacheUsed": round(now.cells_used / now.cells, 3) if now.cells else None,
                "promptTokensSpared": round(now.spared / now.prompted, 3) if now.prompted else None,
                "residentBytes": sum(memory[path] for path in mine) or None,
            }
        )
    return rows


def _sum(each: Iterable[Figures | None]) -> Figures:
    return sum((one for one in each if one is not None), Figures())


def _read(proxy: Proxy, path: str) -> Figures | None:
    """None of a pod that doesn't answer, or goes away meanwhile."""
    try:
        return figures(proxy.get(path + METRICS_PATH).decode())
    except CommandError as error:
        if error.code is Exit.FORBIDDEN:
            raise
        return None


def _resident(proxy: Proxy, path: str) -> int:
    try:
        told = json.loads(proxy.get(path + REPORT_PATH))
    except (CommandError, ValueError):
        return 0
    return int((told.get("memory") or {}).get("resident") or 0)


def _show(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    if output.emit(rows, args.output):
        return
    if args.watch and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
    headers = ["NAMESPACE", "NAME", "PODS", "TOK/S", "RUNNING", "WAITING", "CACHE", "SPARED", "MEMORY"]
    shown = 0 if args.all_namespaces else 1
    print(output.table(headers[shown:], [_row(each)[shown:] for each in rows]), flush=True)


def _pods_told(told: Mapping[str, Any]) -> str:
    pods, answering = told["pods"], told["answering"]
    if answering < pods:
        return f"{pods} ({pods - answering} don't answer)"
    return str(pods) if told["loaded"] else f"{pods} (unloaded)"


def _row(told: Mapping[str, Any]) -> list[str]:
    def share(part: float | None) -> str:
        return "" if part is None else f"{part:.0%}"

    return [
        told["namespace"],
        told["name"],
        _pods_told(told),
        f"{told['tokensPerSecond']:.1f}",
        str(told["running"]),
        str(told["waiting"]),
        share(told["cacheUsed"]),
        share(told["promptTokensSpared"]),
        output.size(told["residentBytes"]),
    ]
