"""The floor: a client that knows all answers beforehand and makes the same writes as the operator.

Its bodies are the operator's own, rendered before the clock starts.
"""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from bench.operator.stage import CONNECTIONS, DEPLOYMENT_PATH, NAMESPACE, SLM_PATH, Api, Clock, api
from slm_operator.cluster.resources import resource_of
from slm_operator.decide import decide
from slm_operator.nodes import Node, Nodes
from slm_operator.settings import Settings
from slm_operator.snapshot import ChildRef, Create, Snapshot
from tests.apiserver.kubelet import LABEL, TAINT
from tests.apiserver.operator import SETTINGS, slm
from tests.cluster import ControlPlane
from tests.sim.schema import admitted

Work = asyncio.PriorityQueue[tuple[int, int, str, str, str]]
"""Rank, number, name, uid, and which part is to be written; the smallest first."""
UID = "00000000-0000-0000-0000-000000000000"


def bodies(name: str) -> dict[str, bytes]:
    """What the operator writes for one SLMDeployment, by path."""
    resource = admitted(slm(name, NAMESPACE))
    resource["metadata"] |= {"uid": UID, "generation": 1, "resourceVersion": "1"}
    fake = Node("fake", {LABEL: "fake"}, (TAINT,), {"cpu": "10k", "memory": "100Ti", "pods": "10k"})
    first = Snapshot(
        resource, {}, (), Nodes.of((fake,)), Settings.model_validate(SETTINGS), datetime.now(UTC)
    )
    steps = decide(first).plan.steps
    children: dict[ChildRef, Any] = {step.ref: step.document for step in steps if isinstance(step, Create)}
    made = {ref: child for ref, child in children.items() if ref.kind != "Secret"}
    status = decide(replace(first, children=made)).status
    written = {resource_of(child).path(NAMESPACE): orjson.dumps(child) for child in children.values()}
    told = {"apiVersion": resource["apiVersion"], "kind": resource["kind"], "status": status}
    written[f"{SLM_PATH}/{name}/status"] = orjson.dumps({**told, "metadata": {"name": name}})
    return written


async def write(client: Api, ready: dict[str, bytes], uid: str, part: str) -> None:
    for path, body in ready.items():
        ours = body.replace(UID.encode(), uid.encode())
        if path.endswith("/status") != (part == "status"):
            continue
        if path.endswith("/status"):
            await client.send("PATCH", path, ours, apply=True)
            # The second one says something else, or the API server would skip it.
            second = ours.replace(b'"observedGeneration":1', b'"observedGeneration":0')
            await client.send("PATCH", path, second, apply=True)
        else:
            await client.send("POST", path, ours)


async def burst(plane: ControlPlane, count: int, *, statuses_last: bool) -> float:
    """Seconds from the first create to the last Deployment.

    With ``statuses_last`` every child is written before the first status, as the operator does in a burst;
    without it each SLMDeployment is finished before the next.
    """
    names = [f"b{number}" for number in range(count)]
    ready = {name: bodies(name) for name in names}
    created: Work = asyncio.PriorityQueue()
    async with api(plane) as creator, api(plane) as writer, api(plane, 2) as watching:
        clock = Clock()
        following = asyncio.create_task(clock.follow(watching, DEPLOYMENT_PATH, count, lambda _: True))
        await clock.begun()
        clock.start = time.monotonic()
        creating = asyncio.create_task(create(creator, names, created))
        workers = [
            asyncio.create_task(work(writer, ready, created, int(statuses_last))) for _ in range(CONNECTIONS)
        ]
        seconds = await following
        await creating
        await created.join()
        for worker in workers:
            worker.cancel()
    return seconds


async def create(creator: Api, names: list[str], created: "Work | None" = None) -> None:
    """What people do: all SLMDeployments at once, over as many connections as the rest."""
    left = iter(enumerate(names))

    async def some() -> None:
        for number, name in left:
            made = await creator.send("POST", SLM_PATH, orjson.dumps(slm(name, NAMESPACE)))
            if created is not None:
                created.put_nowait((0, number, name, made["metadata"]["uid"], "children"))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(some())


async def work(client: Api, ready: dict[str, dict[str, bytes]], created: "Work", rank: int) -> None:
    """Write children, then the status: at once, or (rank 1) when no children wait."""
    while True:
        _, number, name, uid, part = await created.get()
        await write(client, ready[name], uid, part)
        if part == "children":
            created.put_nowait((rank, -1 if rank == 0 else number, name, uid, "status"))
        created.task_done()
