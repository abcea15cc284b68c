"""A fresh control plane with CRD and fake kubelet, and a raw HTTP client for it."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from typing_extensions import override

from slm_operator.cluster import connection
from tests.apiserver.kubelet import beside
from tests.apiserver.operator import CRD
from tests.cluster import ControlPlane

CONNECTIONS = 16
NAMESPACE = "bench"
SLM_PATH = f"/apis/slm-operator.io/v1alpha1/namespaces/{NAMESPACE}/slmdeployments"
DEPLOYMENT_PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
JSON = {"Content-Type": "application/json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}
MERGE = {"Content-Type": "application/merge-patch+json"}


class Patient(ControlPlane):
    """Leaves nodes without a kubelet as they are."""

    @override
    def _controller_flags(self, name: str, port: int) -> list[str]:
        patience = ["--node-monitor-grace-period=24h"] if name == "kube-controller-manager" else []
        return [*super()._controller_flags(name, port), *patience]


@contextmanager
def stage() -> Iterator[ControlPlane]:
    """etcd, API server, controller manager, scheduler, and a node whose pods are ready at once."""
    with Patient(controllers=True) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(CRD))
        plane.established("slmdeployments.slm-operator.io")
        plane.kubectl("create", "namespace", NAMESPACE)
        with beside(plane.kubeconfig):
            yield plane


class Api:
    """As bare as a client gets: bodies ready made, answers unread."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(
        self, method: str, path: str, body: bytes | None = None, *, apply: bool = False
    ) -> dict[str, Any]:
        query = {"fieldManager": "bare", "force": "true"} if apply else None
        return await self._send(method, path, body, query, APPLY if apply else JSON)

    async def merge(self, path: str, body: bytes) -> dict[str, Any]:
        return await self._send("PATCH", path, body, None, MERGE)

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        query: dict[str, str] | None,
        headers: dict[str, str],
    ) -> dict[str, Any]:
        async with self._session.request(method, path, data=body, params=query, headers=headers) as response:
            payload = await response.read()
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {payload[:500]!r}")
        return orjson.loads(payload)

    async def watch(self, path: str, since: str) -> AsyncIterator[dict[str, Any]]:
        query = {"watch": "true", "resourceVersion": since}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(path, params=query, timeout=timeout) as response:
            async for line in response.content:
                yield orjson.loads(line)


@asynccontextmanager
async def api(plane: ControlPlane, connections: int = CONNECTIONS) -> AsyncIterator[Api]:
    configuration = await connection.load(str(plane.kubeconfig))
    context: ssl.SSLContext = connection.api_client(configuration, 1).rest_client.ssl_context
    connector = aiohttp.TCPConnector(ssl=context, limit=connections)
    async with aiohttp.ClientSession(
        configuration.host, connector=connector, headers={"User-Agent": "bench"}, read_bufsize=2**21
    ) as session:
        yield Api(session)


@dataclass
class Clock:
    """When each object was first seen to be as it should, in seconds since the start."""

    start: float = field(default_factory=time.monotonic)
    seen: dict[str, float] = field(default_factory=dict)

    async def follow(self, watching: Api, path: str, count: int, holds: Any) -> float:
        """Until ``count`` objects are so; returns the seconds."""
        version = (await watching.send("GET", f"{path}?limit=1"))["metadata"]["resourceVersion"]
        self._ready.set()
        while True:
            # The API server ends the watch of who reads too slowly in a burst.
            async for event in watching.watch(path, version):
                document = event["object"]
                if event["type"] == "ERROR":
                    raise RuntimeError(f"the watch of {path} ended: {document}")
                name, version = document["metadata"]["name"], document["metadata"]["resourceVersion"]
                if name not in self.seen and holds(document):
                    self.seen[name] = time.monotonic() - self.start
                    if len(self.seen) == count:
                        return self.seen[name]

    def __post_init__(self) -> None:
        self._ready = asyncio.Event()

    async def begun(self) -> None:
        """The watch runs: from here on nothing is missed."""
        await self._ready.wait()
