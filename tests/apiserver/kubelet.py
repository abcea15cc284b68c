"""A kubelet without containers: a tainted node whose pods are ready as soon as they are bound to it.

``python -m tests.apiserver.kubelet NODE`` with KUBECONFIG set; it runs until it is stopped. Pods whose image or
model says so do something else: see `plays`.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration

from slm_operator.cluster import connection
from tests.apiserver.plays import status_of

ROOT = Path(__file__).resolve().parents[2]
TAINT = {"key": "tests.slm-operator.io/fake", "value": "kubelet", "effect": "NoSchedule"}
LABEL = "tests.slm-operator.io/kubelet"
HEARTBEAT = 10.0
AT_ONCE = 4
MERGE = {"Content-Type": "application/merge-patch+json"}


class Kubelet:
    """One node and its pods."""

    def __init__(self, configuration: Configuration, node: str) -> None:
        self._node = node
        self._ssl = connection.api_client(configuration, AT_ONCE).rest_client.ssl_context
        self._host = configuration.host
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=AT_ONCE + 2)
        headers = {"User-Agent": "fake-kubelet"}
        async with aiohttp.ClientSession(
            self._host, connector=connector, headers=headers, read_bufsize=2**21
        ) as self._session:
            await self._register()
            print("ready", flush=True)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat())
                tasks.create_task(self._watch())

    async def _send(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        async with self._session.request(method, path, json=body, **more) as response:
            return orjson.loads(await response.read())

    async def _register(self) -> None:
        metadata = {"name": self._node, "labels": {LABEL: "fake", "kubernetes.io/hostname": self._node}}
        node = {"metadata": metadata, "spec": {"taints": [TAINT]}}
        await self._send("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", **node})
        capacity = {"cpu": "10k", "memory": "100Ti", "pods": "10k", "ephemeral-storage": "100Ti"}
        condition = {"type": "Ready", "status": "True", "reason": "Fake", "message": "no containers"}
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [condition]}
        await self._send("PATCH", f"/api/v1/nodes/{self._node}/status", {"status": status}, headers=MERGE)

    async def _beat(self) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            spec = {
                "holderIdentity": self._node,
                "leaseDurationSeconds": 40,
                "renewTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            }
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._node, "namespace": "kube-node-lease"},
                "spec": spec,
            }
            answer = await self._send("POST", path, lease)
            if answer.get("reason") == "AlreadyExists":
                await self._send("PATCH", f"{path}/{self._node}", {"spec": spec}, headers=MERGE)
            await asyncio.sleep(HEARTBEAT)

    async def _watch(self) -> None:
        query = {"fieldSelector": f"spec.nodeName={self._node}"}
        while True:
            listed = await self._send("GET", "/api/v1/pods", params=query)
            for pod in listed["items"]:
                self._take(pod)
            since = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
            with suppress(aiohttp.ClientError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=None)
                async with self._session.get(
                    "/api/v1/pods", params=query | since, timeout=timeout
                ) as response:
                    async for line in response.content:
                        event = orjson.loads(line)
                        if event["type"] in {"ADDED", "MODIFIED"}:
                            self._take(event["object"])
                        elif event["type"] == "ERROR":
                            break

    def _take(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            work = self._send("DELETE", path, {"gracePeriodSeconds": 0})
        elif "startTime" not in pod["status"]:
            work = self._send("PATCH", f"{path}/status", {"status": status_of(pod)}, headers=MERGE)
        else:
            return
        task = asyncio.create_task(self._limited(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _limited(self, work: Any) -> None:
        async with self._slots:
            await work


@contextmanager
def beside(kubeconfig: Path) -> Iterator[None]:
    """One in a process of its own, with its node, as long as the context lasts."""
    kubelet = subprocess.Popen(
        [sys.executable, "-m", "tests.apiserver.kubelet", "fake"],
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        assert kubelet.stdout is not None
        assert kubelet.stdout.readline() == b"ready\n"
        yield
    finally:
        kubelet.terminate()
        kubelet.communicate(timeout=10)


async def main(node: str) -> None:
    await Kubelet(await connection.load(), node).run()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
