"""The operator's side of each measurement."""

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import orjson

from bench.operator.bare import create
from bench.operator.stage import DEPLOYMENT_PATH, NAMESPACE, SLM_PATH, Api, Clock, api
from bench.servers import cpu_seconds
from tests.apiserver.operator import Audit, Operator, slm
from tests.cluster import ControlPlane

QUIET = 5.0


@dataclass
class Process:
    cpu_seconds: float
    peak_rss_mib: float

    @staticmethod
    def of(pid: int) -> "Process":
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return Process(cpu_seconds(pid), int(peak.split()[1]) / 1024)


def is_ready(document: dict[str, Any]) -> bool:
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def has_context(length: int) -> Any:
    def holds(document: dict[str, Any]) -> bool:
        return f'"contextLength":{length}'.encode() in orjson.dumps(document).replace(b'\\"', b'"')

    return holds


async def rest(audit: Audit) -> Counter[str]:
    """The writes, once none has come for a while."""
    last, since = audit.writes(NAMESPACE), time.monotonic()
    while time.monotonic() - since < QUIET:
        await asyncio.sleep(0.5)
        if (now := audit.writes(NAMESPACE)) != last:
            last, since = now, time.monotonic()
    return last


async def burst(plane: ControlPlane, count: int, *, thorough: bool) -> dict[str, Any]:
    """All at once; where ``thorough`` also rest, an edit of all and a restart, on the same objects."""
    names = [f"b{number}" for number in range(count)]
    figures: dict[str, Any] = {}
    with Operator(plane, Path(tempfile.mkdtemp())) as operator:
        async with api(plane) as creator, api(plane, 4) as watching:
            audit = Audit(plane)
            deployed, ready = Clock(), Clock()
            last_deployment = asyncio.create_task(
                deployed.follow(watching, DEPLOYMENT_PATH, count, lambda _: True)
            )
            last_ready = asyncio.create_task(ready.follow(watching, SLM_PATH, count, is_ready))
            await deployed.begun()
            await ready.begun()
            deployed.start = ready.start = time.monotonic()
            await create(creator, names)
            figures["all_deployments_s"] = await last_deployment
            figures["all_ready_s"] = await last_ready
            figures["writes"] = per_one(await rest(audit), count)
            figures |= asdict(Process.of(operator.pid))
            if thorough:
                figures["rest"] = await at_rest(plane, operator)
                figures["edit"] = await edit_all(plane, watching, names, operator)
                figures["restart"] = await restart(plane, operator)
    return figures


async def at_rest(plane: ControlPlane, operator: Operator, seconds: float = 60) -> dict[str, Any]:
    audit, before = Audit(plane), Process.of(operator.pid)
    await asyncio.sleep(seconds)
    after = Process.of(operator.pid)
    return {
        "seconds": seconds,
        "writes": sum(audit.writes().values()),
        "cpu_seconds": after.cpu_seconds - before.cpu_seconds,
    }


async def edit_all(
    plane: ControlPlane, watching: Api, names: list[str], operator: Operator
) -> dict[str, Any]:
    """One field of all."""
    audit, before = Audit(plane), Process.of(operator.pid)
    clock = Clock()
    last = asyncio.create_task(clock.follow(watching, DEPLOYMENT_PATH, len(names), has_context(1024)))
    await clock.begun()
    clock.start = time.monotonic()
    left = iter(names)
    body = [
        orjson.dumps({**slm(name, NAMESPACE, runtime={"contextLength": 1024}), "metadata": {"name": name}})
        for name in names
    ]
    by_name = dict(zip(names, body, strict=True))

    async with api(plane) as editor:

        async def some() -> None:
            for name in left:
                await editor.send("PATCH", f"{SLM_PATH}/{name}", by_name[name], apply=True)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(some())
    seconds = await last
    await all_ready(watching)
    writes = await rest(audit)
    return {
        "last_template_s": seconds,
        "quiet_s": time.monotonic() - clock.start - QUIET,
        "writes": per_one(writes, len(names)),
        "cpu_seconds": Process.of(operator.pid).cpu_seconds - before.cpu_seconds,
    }


async def all_ready(client: Api) -> None:
    """Until every roll-out has ended, which takes the controllers far longer than the operator."""
    while True:
        items = (await client.send("GET", SLM_PATH))["items"]
        if all(
            is_ready(item) and item["status"].get("observedGeneration") == item["metadata"]["generation"]
            for item in items
        ):
            return
        await asyncio.sleep(1)


async def restart(plane: ControlPlane, operator: Operator) -> dict[str, Any]:
    operator.stop()
    audit, started = Audit(plane), time.monotonic()
    operator.start()
    acting = time.monotonic() - started
    while waiting(operator):  # noqa: ASYNC110 - the event is in another process
        await asyncio.sleep(0.05)
    caught_up = time.monotonic() - started
    await asyncio.sleep(15)
    return {
        "acting_s": acting,
        "caught_up_s": caught_up,
        "writes": sum(audit.writes(NAMESPACE).values()),
        **asdict(Process.of(operator.pid)),
    }


def waiting(operator: Operator) -> float:
    """Deployments in the operator's queue."""
    return sum(operator.metric(f"slm_operator_queue_depth_{lane}") for lane in ("act", "report"))


async def one_at_a_time(plane: ControlPlane, count: int) -> dict[str, Any]:
    """Create → Deployment, milliseconds: each when the one before is ready."""
    with Operator(plane, Path(tempfile.mkdtemp())):
        async with api(plane) as creator, api(plane, 4) as watching:
            taken = []
            for number in range(count):
                deployed, ready = Clock(), Clock()
                name = f"o{number}"
                tasks = [
                    asyncio.create_task(
                        clock.follow(
                            watching,
                            path,
                            1,
                            lambda document, name=name, holds=holds: (
                                document["metadata"]["name"] == name and holds(document)
                            ),
                        )
                    )
                    for clock, path, holds in (
                        (deployed, DEPLOYMENT_PATH, lambda _: True),
                        (ready, SLM_PATH, is_ready),
                    )
                ]
                await deployed.begun()
                await ready.begun()
                deployed.start = time.monotonic()
                await creator.send("POST", SLM_PATH, orjson.dumps(slm(name, NAMESPACE)))
                taken.append(1000 * await tasks[0])
                await tasks[1]
    return {"count": count, "median_ms": median(taken), "p99_ms": quantiles(taken, n=100)[98]}


def per_one(writes: Counter[str], count: int) -> dict[str, float]:
    each = {what: round(number / count, 2) for what, number in sorted(writes.items())}
    return {"all": round(sum(writes.values()) / count, 2), **each}
