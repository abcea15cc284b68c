"""Thousands of SLMDeployments beside thousands of nodes: what they take of the operator, and how long it is deaf."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench.operator.bare import create
from bench.operator.ours import Process, at_rest, is_ready, per_one, rest, restart
from bench.operator.stage import CONNECTIONS, DEPLOYMENT_PATH, NAMESPACE, SLM_PATH, Api, Clock, api
from tests.apiserver.kubelet import LABEL
from tests.apiserver.operator import Audit, Operator
from tests.cluster import ControlPlane

NODES_PATH = "/api/v1/nodes"
LABELS = 20
IMAGES = 50
"""As many as a kubelet tells of."""


def node(number: int) -> bytes:
    """A node as clouds make them; it has no kubelet, and nothing runs on it."""
    labels = {f"cloud.example.com/label-{each}": f"value-{each}" for each in range(LABELS)}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    images = [
        {"names": [f"registry.example.com/team/image-{each}@sha256:{each:064x}"], "sizeBytes": 10**8}
        for each in range(IMAGES)
    ]
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "no kubelet"}
    return orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"n{number}",
                "labels": {**labels, "kubernetes.io/hostname": f"n{number}", LABEL: "none"},
            },
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [condition],
                "images": images,
            },
        }
    )


@dataclass
class Loop:
    """The longest lag of the operator's event loop, seen from outside."""

    operator: Operator
    lag: float = 0.0
    block: float = 0.0
    """Of which the operator itself computed."""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        self.lag = max(self.lag, self.operator.metric("slm_operator_event_loop_lag_seconds"))
        self.block = max(self.block, self.operator.metric("slm_operator_event_loop_block_seconds"))

    def figures(self) -> dict[str, float]:
        return {"lag_s": self.lag, "block_s": self.block}

    async def follow(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(10)


@contextmanager
def longest_lag(operator: Operator) -> Iterator[Loop]:
    loop = Loop(operator)
    following = asyncio.create_task(loop.follow())
    yield loop
    following.cancel()
    loop.look()


async def label_all(client: Api, nodes: int, labels: dict[str, str]) -> float:
    """`kubectl label nodes --all`, over more connections than kubectl has; returns the seconds."""
    body, started = orjson.dumps({"metadata": {"labels": labels}}), time.monotonic()
    await spread(range(nodes), lambda number: client.merge(f"{NODES_PATH}/n{number}", body))
    return time.monotonic() - started


async def spread(items: Iterable[int], work: Callable[[int], Any]) -> None:
    left = iter(items)

    async def some() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(some())


def table(document: dict[str, Any]) -> list[str]:
    """For docs/benchmarks.md."""
    label, restart = document["label"], document["restart"]
    rows = [
        ("seconds to all Deployments", f"{document['all_deployments_s']:.0f}"),
        (
            "seconds to all Ready (the controllers' own limit of requests is what lasts)",
            f"{document['all_ready_s']:.0f}",
        ),
        ("writes each until Ready", f"{document['writes']['all']:.1f}"),
        ("CPU seconds of the operator", f"{document['cpu_seconds']:.0f}"),
        ("peak RSS, MiB (the chart's limit: 512)", f"{document['peak_rss_mib']:.0f}"),
        (
            "writes at rest in 60 s; CPU seconds",
            f"{document['rest']['writes']}; {document['rest']['cpu_seconds']:.1f}",
        ),
        ("`kubectl label nodes --all`: seconds, writes", f"{label['seconds']:.0f}, {label['writes']}"),
        ("... for how long the operator held its event loop at most, ms", f"{1000 * label['block_s']:.0f}"),
        (
            "restart: writes, seconds until nothing waits",
            f"{restart['writes']}, {restart['caught_up_s']:.0f}",
        ),
    ]
    return ["| | |", "|---|---:|", *(f"| {name} | {figure} |" for name, figure in rows)]


async def scaled(plane: ControlPlane, size: int, nodes: int) -> dict[str, Any]:
    """All at once, labels on all nodes, rest, and a restart."""
    figures: dict[str, Any] = {"size": size, "nodes": nodes}
    async with api(plane) as client, api(plane, 4) as watching:
        await spread(range(nodes), lambda number: client.send("POST", NODES_PATH, node(number)))
        with Operator(plane, Path(tempfile.mkdtemp())) as operator:
            with longest_lag(operator) as loop:
                figures |= await burst(plane, client, watching, size)
            figures |= asdict(Process.of(operator.pid)) | loop.figures()
            print(figures, flush=True)
            # What happened before is out of the metric after a minute, and what is labelled is past it.
            figures["rest"] = await at_rest(plane, operator)
            for what, labels in (("label", {"example.com/x": "y"}), ("seen_label", {LABEL: "other"})):
                audit, before = Audit(plane), Process.of(operator.pid)
                with longest_lag(operator) as loop:
                    seconds = await label_all(client, nodes, labels)
                    await rest(audit)
                figures[what] = {
                    "seconds": seconds,
                    **loop.figures(),
                    "cpu_seconds": Process.of(operator.pid).cpu_seconds - before.cpu_seconds,
                    "writes": sum(audit.writes(NAMESPACE).values()),
                }
                print({what: figures[what]}, flush=True)
            figures["peak_rss_mib"] = Process.of(operator.pid).peak_rss_mib
            figures["restart"] = await restart(plane, operator)
            loop = Loop(operator)
            loop.look()
            figures["restart"] |= loop.figures()
    return figures


async def burst(plane: ControlPlane, client: Api, watching: Api, size: int) -> dict[str, Any]:
    names = [f"b{number}" for number in range(size)]
    audit, deployed, ready = Audit(plane), Clock(), Clock()
    last_deployment = asyncio.create_task(deployed.follow(watching, DEPLOYMENT_PATH, size, lambda _: True))
    last_ready = asyncio.create_task(ready.follow(watching, SLM_PATH, size, is_ready))
    await deployed.begun()
    await ready.begun()
    deployed.start = ready.start = time.monotonic()
    await create(client, names)
    figures: dict[str, Any] = {"created_s": time.monotonic() - deployed.start}
    figures["all_deployments_s"] = await last_deployment
    figures["all_ready_s"] = await last_ready
    figures["writes"] = per_one(await rest(audit), size)
    return figures
